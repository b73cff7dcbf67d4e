# Semantic FPN on ADE20K by the recipe of 40k iterations, from scratch.
_base_ = [
    './models/fpn_inceptionnext.py', './datasets/ade20k_fpn.py', './schedules/adamw_40k.py', './default_runtime.py'
]
