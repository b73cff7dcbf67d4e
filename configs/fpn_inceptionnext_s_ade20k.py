_base_ = [
    './_base_/models/fpn_inceptionnext_s.py', './_base_/datasets/ade20k_fpn.py', './_base_/schedules/adamw_40k.py',
    './_base_/default_runtime.py'
]
