# Swin-T, MMSegmentation's own, under the recipe of this project, which is Swin's.
_base_ = '../_base_/upernet_ade20k.py'
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=f'{checkpoint}swin_tiny_patch4_window7_224_20220317-1cdeb081.pth')))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))))
