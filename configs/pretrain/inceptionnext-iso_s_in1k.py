# Table 5: isotropic InceptionNeXt-S.
_base_ = './inceptionnext_t_in1k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='IsotropicMetaNeXt',
        token_mixer=dict(type='InceptionDWConv2d'),
        drop_path_rate=0.1,
        norm_cfg=dict(type='BN')),
    head='linear')
