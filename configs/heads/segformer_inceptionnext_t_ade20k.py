# SegFormer's head: every map to 256 channels, resized, joined. Ours, untrained.
_base_ = '../upernet_inceptionnext_t_ade20k.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[96, 192, 384, 768],
        in_index=[0, 1, 2, 3],
        channels=256,
        num_classes=150,
        norm_cfg=_base_.norm_cfg),
    auxiliary_head=None)
