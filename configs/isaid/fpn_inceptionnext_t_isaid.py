_base_ = ['../_base_/models/fpn_inceptionnext_t.py', '../_base_/isaid.py']
model = dict(data_preprocessor=dict(size=(896, 896)), decode_head=dict(num_classes=16))
