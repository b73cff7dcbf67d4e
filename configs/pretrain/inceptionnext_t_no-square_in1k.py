# Table 8: without the 3 x 3 square.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(with_square=False)))
