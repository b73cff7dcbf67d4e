# COCO-Stuff 10k with its schedule: all but the model.
_base_ = ['./datasets/coco-stuff10k.py', './schedules/adamw_linear_40k.py', './default_runtime.py']
