_base_ = ['../_base_/models/fpn_inceptionnext_t.py', '../_base_/mapillary.py']
model = dict(data_preprocessor=dict(size=(512, 1024)), decode_head=dict(num_classes=65))
