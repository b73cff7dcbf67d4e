# Pascal Context with its schedule: all but the model.
_base_ = ['./datasets/pascal-context-59.py', './schedules/adamw_linear_80k.py', './default_runtime.py']
