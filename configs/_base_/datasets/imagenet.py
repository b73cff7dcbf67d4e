# ImageNet-1K, a folder of images for each class in train and in val, with the augmentations of the paper's table 9.
data_root = 'data/imagenet'
train_transform = dict(
    input_size=224, is_training=True, interpolation='random', auto_augment='rand-m9-mstd0.5-inc1', re_prob=0.25,
    re_mode='pixel')
test_transform = dict(input_size=224, interpolation='bicubic', crop_pct=0.875)
dataset = dict(type='ClassificationDataset', data_root=data_root, num_classes=1000)
train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='train', transform=train_transform, **dataset))
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='val', transform=test_transform, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
