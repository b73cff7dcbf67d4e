# Weights, gradients and the optimizer's state shared out among the processes of tools/dist_train.sh.
_base_ = './upernet_inceptionnext_b_ade20k.py'
runner_type = 'FlexibleRunner'
strategy = dict(type='ResumableFSDPStrategy')
