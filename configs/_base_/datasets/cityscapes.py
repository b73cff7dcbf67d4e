# Cityscapes, 19 classes, crop 512 x 1024, tested whole at 1024 x 2048.
_base_ = './ade20k.py'
dataset_type = 'CheckedCityscapesDataset'
data_root = 'data/cityscapes'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(2048, 1024))  # RandomResize
train_pipeline[4].update(crop_size=(512, 1024))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(2048, 1024))  # Resize
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
