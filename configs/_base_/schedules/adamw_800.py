# Short training from scratch on a CPU: AdamW 2e-3, 800 iterations, 100 of warm-up, power 0.9.
_base_ = './adamw_160k.py'
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0., power=0.9, begin=100, end=800, by_epoch=False),
]
train_cfg = dict(max_iters=800, val_interval=400)
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=8)  # CamVid's; the toy config sets its own
