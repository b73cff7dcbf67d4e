# Table 8: without the band along the height.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(with_band_h=False)))
