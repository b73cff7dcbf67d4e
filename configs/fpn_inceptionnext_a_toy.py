# The demo: drawn scenes, atto from scratch under a narrow FPN, minutes on a CPU.
_base_ = [
    './_base_/models/fpn_inceptionnext.py', './_base_/datasets/toy_ade20k.py', './_base_/schedules/adamw_800.py',
    './_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='atto', drop_path_rate=0.),
    neck=dict(in_channels=[40, 80, 160, 320], out_channels=64),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64))
auto_scale_lr = dict(base_batch_size=6)
