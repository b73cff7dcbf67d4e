# InceptionNeXt-B at 384 x 384, from the weights at 224: 30 epochs of 1251 iterations at batch 1024 (8 x 128), a fixed
# learning rate, no Mixup, averaged weights. 85.2 top-1 in the paper.
_base_ = './inceptionnext_b_in1k.py'
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_base.pth'
model = dict(
    data_preprocessor=dict(mixup=dict(prob=0.)),  # which leaves label smoothing
    backbone=dict(drop_path_rate=0.7),
    dropout_ratio=0.5,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
train_dataloader = dict(batch_size=128, dataset=dict(transform=dict(input_size=384)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=384, crop_pct=1.0)))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = []
train_cfg = dict(max_iters=30 * 1251, val_interval=1251)
default_hooks = dict(checkpoint=dict(interval=1251))
custom_hooks = [dict(type='BatchSizeHook'), dict(type='EMAHook', momentum=1e-4)]
auto_scale_lr = dict(base_batch_size=1024)
