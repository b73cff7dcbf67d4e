_base_ = ['../_base_/models/fpn_inceptionnext_t.py', '../_base_/coco-stuff164k.py']
model = dict(decode_head=dict(num_classes=171))
