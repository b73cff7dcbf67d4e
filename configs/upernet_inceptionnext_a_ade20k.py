# Ours, not the paper's: the paper has no segmentation row for this size.
_base_ = [
    './_base_/models/upernet_inceptionnext_a.py', './_base_/datasets/ade20k.py', './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py'
]
