# Table 8: LayerNorm for BatchNorm. From scratch: its ImageNet weights are not public.
_base_ = '../_base_/upernet_ade20k.py'
ln_cfg = dict(type='LN', eps=1e-6)
model = dict(
    backbone=dict(
        drop_path_rate=0.2, norm_cfg=dict(_delete_=True, **ln_cfg), out_norm_cfg=dict(_delete_=True, **ln_cfg)))
