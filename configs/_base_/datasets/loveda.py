# LoveDA, seven classes, trained as ADE20K, tested at 1024 x 1024.
_base_ = './potsdam.py'
dataset_type = 'CheckedLoveDADataset'
data_root = 'data/loveDA'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(2048, 512))  # RandomResize
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(1024, 1024))  # Resize
train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
