# PoolFormer-S24, timm's, with GN on each output as its authors have it, under this project's recipe, which is theirs.
_base_ = '../_base_/fpn_ade20k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='NormedTIMMBackbone',
        model_name='poolformer_s24.sail_in1k',
        pretrained=True,
        out_norm_cfg=dict(type='GN', num_groups=1)),
    neck=dict(in_channels=[64, 128, 320, 512]))
