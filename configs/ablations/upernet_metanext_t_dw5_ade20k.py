# Table 1: a kernel of 5 x 5.
_base_ = './upernet_metanext_t_dw7_ade20k.py'
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/convnext_tiny_k5.pth'
model = dict(backbone=dict(token_mixer=dict(kernel_size=5), init_cfg=dict(checkpoint=checkpoint)))
