# Table 8: a sixteenth of the channels in each branch.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 16)))
