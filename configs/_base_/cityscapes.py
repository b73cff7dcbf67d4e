# Cityscapes with its schedule: all but the model.
_base_ = ['./datasets/cityscapes.py', './schedules/adamw_160k.py', './default_runtime.py']
