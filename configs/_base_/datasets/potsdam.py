# ISPRS Potsdam, six classes, in patches of 512 x 512.
_base_ = './ade20k.py'
dataset_type = 'CheckedPotsdamDataset'
data_root = 'data/potsdam'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(512, 512))  # RandomResize
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(512, 512))  # Resize
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
