_base_ = [
    './_base_/models/upernet_inceptionnext_b.py', './_base_/datasets/ade20k.py', './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py'
]
