# Table 5: MetaNeXt with self-attention, which does not train in the paper (3.9 top-1); 12 blocks, as in DeiT-S.
_base_ = './inceptionnext-iso_s_in1k.py'
model = dict(
    backbone=dict(
        depth=12,
        out_indices=(11, ),
        token_mixer=dict(_delete_=True, type='SelfAttention2d'),
        norm_cfg=dict(type='LN', eps=1e-6)))
