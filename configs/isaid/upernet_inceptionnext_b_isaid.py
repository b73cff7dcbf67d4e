_base_ = ['../_base_/models/upernet_inceptionnext_b.py', '../_base_/isaid.py']
model = dict(
    data_preprocessor=dict(size=(896, 896)), decode_head=dict(num_classes=16), auxiliary_head=dict(num_classes=16))
