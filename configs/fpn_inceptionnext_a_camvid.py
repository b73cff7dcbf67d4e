# Real street scenes, atto from scratch under a narrow FPN, for a CPU. Ours, not the paper's.
_base_ = [
    './_base_/models/fpn_inceptionnext.py', './_base_/datasets/camvid.py', './_base_/schedules/adamw_800.py',
    './_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(192, 256)),
    backbone=dict(arch='atto', drop_path_rate=0.),
    neck=dict(in_channels=[40, 80, 160, 320], out_channels=64),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64, num_classes=11))
