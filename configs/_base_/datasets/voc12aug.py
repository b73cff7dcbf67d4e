# Pascal VOC 2012 with the labels of SBD added to its training set, 21 classes, in sizes and crops as ADE20K.
_base_ = './ade20k.py'
dataset_type = 'CheckedPascalVOCDataset'
data_root = 'data/VOCdevkit/VOC2012'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                data_prefix=dict(img_path='JPEGImages', seg_map_path=f'SegmentationClass{of}'),
                ann_file=f'ImageSets/Segmentation/{names}.txt',
                pipeline=_base_.train_pipeline) for names, of in (('train', ''), ('aug', 'Aug'))
        ]))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt'))
test_dataloader = val_dataloader
