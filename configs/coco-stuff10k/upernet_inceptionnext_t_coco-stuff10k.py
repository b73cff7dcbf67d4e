_base_ = ['../_base_/models/upernet_inceptionnext_t.py', '../_base_/coco-stuff10k.py']
model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
