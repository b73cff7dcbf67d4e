# DeepLabV3+: the last map at stride 16, convolved at several dilations, then joined with the first. Ours, untrained.
_base_ = '../upernet_inceptionnext_t_ade20k.py'
model = dict(
    backbone=dict(dilations=(1, 1, 1, 2), out_indices=(0, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='DepthwiseSeparableASPPHead',
        in_channels=768,
        in_index=2,
        channels=512,
        dilations=(1, 6, 12, 18),
        c1_in_channels=96,
        c1_channels=48,
        num_classes=150,
        norm_cfg=_base_.norm_cfg),
    auxiliary_head=dict(in_index=1))
