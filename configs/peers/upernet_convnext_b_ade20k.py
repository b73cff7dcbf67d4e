_base_ = './upernet_convnext_t_ade20k.py'
model = dict(
    backbone=dict(model_name='convnext_base.fb_in1k'),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
