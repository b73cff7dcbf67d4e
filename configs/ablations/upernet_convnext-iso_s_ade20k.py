# Table 5: isotropic ConvNeXt-S.
_base_ = './upernet_inceptionnext-iso_s_ade20k.py'
norm_cfg = dict(type='LN', eps=1e-6)
model = dict(
    backbone=dict(
        token_mixer=dict(_delete_=True, type='PartialDWConv2d', kernel_size=7), norm_cfg=norm_cfg,
        out_norm_cfg=norm_cfg))
