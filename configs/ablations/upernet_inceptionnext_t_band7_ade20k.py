# Table 8: bands of 7. From scratch: its ImageNet weights are not public.
_base_ = '../_base_/upernet_ade20k.py'
model = dict(backbone=dict(drop_path_rate=0.2, token_mixer=dict(band_kernel_size=7)))
