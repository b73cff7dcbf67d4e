# Table 5: isotropic InceptionNeXt-S; Feature2Pyramid makes four sizes of its one.
_base_ = '../_base_/upernet_ade20k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='IsotropicMetaNeXt',
        depth=18,
        dim=384,
        out_indices=(4, 8, 13, 17),
        token_mixer=dict(type='InceptionDWConv2d'),
        drop_path_rate=0.2),
    neck=dict(type='Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN', requires_grad=True)),
    decode_head=dict(in_channels=[384, 384, 384, 384]))
