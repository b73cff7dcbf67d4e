# iSAID with its schedule: all but the model.
_base_ = ['./datasets/isaid.py', './schedules/adamw_linear_80k.py', './default_runtime.py']
