_base_ = ['../_base_/models/upernet_inceptionnext_b.py', '../_base_/cityscapes.py']
model = dict(
    data_preprocessor=dict(size=(512, 1024)), decode_head=dict(num_classes=19), auxiliary_head=dict(num_classes=19))
