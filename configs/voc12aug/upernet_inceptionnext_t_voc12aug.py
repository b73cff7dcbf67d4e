_base_ = ['../_base_/models/upernet_inceptionnext_t.py', '../_base_/voc12aug.py']
model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
