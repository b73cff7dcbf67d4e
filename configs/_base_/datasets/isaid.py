# iSAID, 16 classes, in patches of 896 x 896.
_base_ = './potsdam.py'
dataset_type = 'CheckediSAIDDataset'
data_root = 'data/iSAID'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(896, 896))  # RandomResize
train_pipeline[4].update(crop_size=(896, 896))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(896, 896))  # Resize
train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
