# Table 1's first row: MetaNeXt with a 7 x 7 depthwise convolution, LN and ConvNeXt-T's sizes is ConvNeXt-T.
_base_ = '../_base_/upernet_ade20k.py'
norm_cfg = dict(type='LN', eps=1e-6)
checkpoint = 'https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MetaNeXt',
        depths=(3, 3, 9, 3),
        dims=(96, 192, 384, 768),
        token_mixer=dict(type='PartialDWConv2d', kernel_size=7, conv_ratio=1.),
        drop_path_rate=0.2,
        norm_cfg=norm_cfg,
        out_norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
