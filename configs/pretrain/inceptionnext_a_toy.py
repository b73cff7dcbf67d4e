# Windows of the drawn scenes by their commonest class, atto from nothing, in about three minutes on a CPU:
# python tools/make_toy_ade20k.py --out data/toy_ade20k --crops data/toy_crops
_base_ = [
    '../_base_/models/inceptionnext_classifier.py', '../_base_/datasets/imagenet.py',
    '../_base_/schedules/adamw_800.py', '../_base_/default_runtime.py'
]
num_classes = 11
data = dict(data_root='data/toy_crops', num_classes=num_classes)
model = dict(
    data_preprocessor=dict(mixup=dict(prob=0., num_classes=num_classes)),
    backbone=dict(arch='atto', drop_path_rate=0.),
    num_classes=num_classes)
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        transform=dict(input_size=64, scale=(0.5, 1.), auto_augment=None, color_jitter=0.2, re_prob=0.), **data))
val_dataloader = dict(num_workers=2, dataset=dict(transform=dict(input_size=64, crop_pct=1.), **data))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best='top1'))
auto_scale_lr = dict(base_batch_size=32)
