# CHASE_DB1 with its schedule: all but the model.
_base_ = ['./datasets/chase-db1.py', './schedules/adamw_linear_40k.py', './default_runtime.py']
