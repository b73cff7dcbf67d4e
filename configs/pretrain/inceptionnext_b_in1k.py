# InceptionNeXt-B on ImageNet-1K. 84.0 top-1 in the paper.
_base_ = './inceptionnext_t_in1k.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.4))
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=0.95)))  # as its published weights are tested
test_dataloader = val_dataloader
