# COCO-Stuff 164k with its schedule: all but the model.
_base_ = ['./datasets/coco-stuff164k.py', './schedules/adamw_linear_80k.py', './default_runtime.py']
