# UPerNet on ADE20K by the recipe of 160k iterations, from scratch.
_base_ = [
    './models/upernet_inceptionnext.py', './datasets/ade20k.py', './schedules/adamw_160k.py', './default_runtime.py'
]
