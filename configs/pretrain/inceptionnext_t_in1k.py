# InceptionNeXt-T on ImageNet-1K from nothing, as the paper trains it. 82.3 top-1 in the paper.
_base_ = [
    '../_base_/models/inceptionnext_classifier.py', '../_base_/datasets/imagenet.py',
    '../_base_/schedules/adamw_300e.py', '../_base_/default_runtime.py'
]
