# Trained on crops of 1024 x 1024, and tested by windows of that size.
_base_ = './upernet_inceptionnext_t_cityscapes.py'
train_pipeline = _base_.train_pipeline
train_pipeline[4].update(crop_size=(1024, 1024))  # RandomCrop
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768)))
