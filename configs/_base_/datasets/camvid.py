# CamVid, 480 x 360, eleven classes, 367 training and 101 validation images.
_base_ = './ade20k.py'
dataset_type = 'CamVidDataset'
data_root = 'data/camvid'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(480, 360), ratio_range=(0.5, 1.5))  # RandomResize
train_pipeline[4].update(crop_size=(192, 256))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type='ResizeToMultiple', size_divisor=32)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
