# Drawn scenes in the layout of ADE20K: python tools/make_toy_ade20k.py --out data/toy_ade20k
_base_ = './ade20k.py'
data_root = 'data/toy_ade20k'
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(256, 192), ratio_range=(0.75, 1.5))  # RandomResize
train_pipeline[4].update(crop_size=(128, 128))  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type='ResizeToMultiple', size_divisor=32)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)]
train_dataloader = dict(batch_size=6, num_workers=2, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(num_workers=2, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
