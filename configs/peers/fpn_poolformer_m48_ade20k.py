_base_ = './fpn_poolformer_s24_ade20k.py'
model = dict(
    backbone=dict(model_name='poolformer_m48.sail_in1k'), neck=dict(in_channels=[96, 192, 384, 768]))
