# Mapillary Vistas 1.2, 65 classes, in sizes and crops as Cityscapes.
_base_ = './cityscapes.py'
dataset_type = 'CheckedMapillaryDataset'
data_root = 'data/mapillary'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='training/images', seg_map_path='training/v1.2/labels')))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='validation/images', seg_map_path='validation/v1.2/labels')))
test_dataloader = val_dataloader
