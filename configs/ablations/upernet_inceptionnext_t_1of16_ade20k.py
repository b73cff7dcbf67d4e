# Table 8: a sixteenth of the channels in each branch. From scratch: its ImageNet weights are not public.
_base_ = '../_base_/upernet_ade20k.py'
model = dict(backbone=dict(drop_path_rate=0.2, token_mixer=dict(branch_ratio=1 / 16)))
