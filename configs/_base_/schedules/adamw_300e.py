# ImageNet by table 9: AdamW 4e-3 at batch 4096 (8 x 512), weight decay 0.05, 300 epochs of 313 iterations, the first 20
# of warm-up, then a cosine to 1e-5.
_base_ = './adamw_160k.py'
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 4e-3, by_epoch=False, begin=0, end=20 * 313),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=20 * 313, end=300 * 313),
]
train_cfg = dict(max_iters=300 * 313, val_interval=10 * 313)
default_hooks = dict(checkpoint=dict(interval=10 * 313, save_best='top1'))
auto_scale_lr = dict(base_batch_size=4096)
