# Table 8: bands of 7.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(band_kernel_size=7)))
