_base_ = './upernet_swin_t_ade20k.py'
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
model = dict(
    backbone=dict(
        depths=[2, 2, 18, 2],
        init_cfg=dict(checkpoint=f'{checkpoint}swin_small_patch4_window7_224_20220317-7ba6d6dd.pth')))
