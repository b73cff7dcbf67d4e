# CHASE_DB1, two classes, 20 training and 8 validation images of 960 x 999 (H x W), crop 128; folders as of ADE20K.
_base_ = './ade20k.py'
dataset_type = 'CheckedChaseDB1Dataset'
data_root = 'data/CHASE_DB1'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(960, 999))  # RandomResize
train_pipeline[4].update(crop_size=(128, 128))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(960, 999))  # Resize
train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
