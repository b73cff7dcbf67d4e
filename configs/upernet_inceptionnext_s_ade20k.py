_base_ = [
    './_base_/models/upernet_inceptionnext.py', './_base_/datasets/ade20k.py', './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py'
]
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_small.pth'
model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
