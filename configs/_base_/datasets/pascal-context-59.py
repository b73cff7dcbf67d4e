# Pascal Context, 59 classes, crop 480.
_base_ = './ade20k.py'
dataset_type = 'CheckedPascalContextDataset59'
data_root = 'data/VOCdevkit/VOC2010'
data_prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext')
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(520, 520))  # RandomResize
train_pipeline[4].update(crop_size=(480, 480))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(520, 520))  # Resize
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/SegmentationContext/train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
