# Table 1: a kernel of 3 x 3 on a half of the channels.
_base_ = './upernet_metanext_t_dw7_ade20k.py'
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/convnext_tiny_k3_par1_2.pth'
model = dict(backbone=dict(token_mixer=dict(kernel_size=3, conv_ratio=1 / 2), init_cfg=dict(checkpoint=checkpoint)))
