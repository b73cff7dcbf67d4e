# Table 8: without the band along the height. From scratch: its ImageNet weights are not public.
_base_ = '../_base_/upernet_ade20k.py'
model = dict(backbone=dict(drop_path_rate=0.2, token_mixer=dict(with_band_h=False)))
