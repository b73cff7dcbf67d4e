# InceptionNeXt-S on ImageNet-1K. 83.5 top-1 in the paper.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
