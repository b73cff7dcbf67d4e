_base_ = [
    './_base_/models/upernet_inceptionnext.py', './_base_/datasets/ade20k.py', './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py'
]
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_base.pth'
model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
