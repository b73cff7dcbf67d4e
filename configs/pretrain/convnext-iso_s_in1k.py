# Table 5: isotropic ConvNeXt-S.
_base_ = './inceptionnext-iso_s_in1k.py'
model = dict(
    backbone=dict(
        token_mixer=dict(_delete_=True, type='PartialDWConv2d', kernel_size=7), norm_cfg=dict(type='LN', eps=1e-6)))
