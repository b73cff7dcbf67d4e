_base_ = './fpn_resnext_101-32x4d_ade20k.py'
model = dict(backbone=dict(groups=64, init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d')))
