# The loss of the hardest pixels only: those predicted with less than 0.7, at least 100 000 an image. Ours, untrained.
_base_ = '../fpn_inceptionnext_t_ade20k.py'
model = dict(decode_head=dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100000)))
