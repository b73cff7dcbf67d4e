# Pascal VOC 2012 with the labels of SBD with its schedule: all but the model.
_base_ = ['./datasets/voc12aug.py', './schedules/adamw_linear_40k.py', './default_runtime.py']
