# Table 1: a kernel of 5 x 5. 82.0 top-1 in the paper.
_base_ = './metanext_t_dw7_in1k.py'
model = dict(backbone=dict(token_mixer=dict(kernel_size=5)))
