_base_ = './fpn_poolformer_s24_ade20k.py'
model = dict(backbone=dict(model_name='poolformer_s36.sail_in1k'))
