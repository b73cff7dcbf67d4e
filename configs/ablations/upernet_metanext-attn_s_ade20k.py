# Table 5: MetaNeXt with self-attention, which does not train in the paper. Its 22 M parameters and 4.6 G MACs are those
# of 12 blocks, as in DeiT-S; 18 would have 33 M and 7.0 G.
_base_ = './upernet_inceptionnext-iso_s_ade20k.py'
norm_cfg = dict(type='LN', eps=1e-6)
model = dict(
    backbone=dict(
        depth=12,
        out_indices=(2, 5, 8, 11),
        token_mixer=dict(_delete_=True, type='SelfAttention2d'),
        norm_cfg=norm_cfg,
        out_norm_cfg=norm_cfg))
