# Ours, not the paper's: the paper has no segmentation row for this size.
_base_ = [
    './_base_/models/upernet_inceptionnext.py', './_base_/datasets/ade20k.py', './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py'
]
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_atto.pth'
model = dict(
    backbone=dict(
        arch='atto',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160))
