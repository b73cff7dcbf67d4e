# Table 1: ConvNeXt-T as a MetaNeXt, with averaged weights as the authors trained its variants. 82.1 top-1 in the paper.
_base_ = './inceptionnext_t_in1k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MetaNeXt',
        depths=(3, 3, 9, 3),
        dims=(96, 192, 384, 768),
        token_mixer=dict(type='PartialDWConv2d', kernel_size=7),
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6)),
    head='linear')
custom_hooks = [dict(type='BatchSizeHook'), dict(type='EMAHook', momentum=1e-4)]
