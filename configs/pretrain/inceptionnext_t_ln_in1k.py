# Table 8: LayerNorm for BatchNorm.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(norm_cfg=dict(type='LN', eps=1e-6)))
