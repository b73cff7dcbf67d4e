# Table 8: without the band along the width.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(with_band_w=False)))
