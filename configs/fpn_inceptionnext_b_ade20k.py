_base_ = [
    './_base_/models/fpn_inceptionnext.py', './_base_/datasets/ade20k_fpn.py', './_base_/schedules/adamw_40k.py',
    './_base_/default_runtime.py'
]
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_base.pth'
model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 512, 1024]))
