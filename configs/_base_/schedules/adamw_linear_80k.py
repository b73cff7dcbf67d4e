# The recipe of adamw_160k.py in 80k iterations.
_base_ = './adamw_160k.py'
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=80000)
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
