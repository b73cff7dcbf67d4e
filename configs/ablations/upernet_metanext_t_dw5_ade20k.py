# Table 1: a kernel of 5 x 5.
_base_ = './upernet_metanext_t_dw7_ade20k.py'
model = dict(backbone=dict(token_mixer=dict(kernel_size=5)))
