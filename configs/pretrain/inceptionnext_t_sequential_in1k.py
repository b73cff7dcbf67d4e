# Table 8: the bands one after the other on the same channels.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(bands='sequential')))
