_base_ = './upernet_convnext_t_ade20k.py'
model = dict(backbone=dict(model_name='convnext_small.fb_in1k', drop_path_rate=0.3))
