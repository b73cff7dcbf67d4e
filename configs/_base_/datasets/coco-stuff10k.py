# COCO-Stuff 10k, 171 classes, in sizes and crops as ADE20K.
_base_ = './ade20k.py'
dataset_type = 'CheckedCOCOStuff10kDataset'
data_root = 'data/coco_stuff10k'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train2014', seg_map_path='annotations/train2014')))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/test2014', seg_map_path='annotations/test2014')))
test_dataloader = val_dataloader
