# SegNeXt's head: three maps joined and factorised. Ours, untrained.
_base_ = '../upernet_inceptionnext_t_ade20k.py'
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='LightHamHead',
        in_channels=[192, 384, 768],
        in_index=[0, 1, 2],
        channels=256,
        ham_channels=256,
        ham_kwargs=dict(MD_S=1, MD_R=16, train_steps=6, eval_steps=7, inv_t=100, rand_init=True),
        num_classes=150,
        norm_cfg=dict(type='GN', num_groups=32)),
    auxiliary_head=None)
