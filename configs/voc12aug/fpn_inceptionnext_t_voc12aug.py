_base_ = ['../_base_/models/fpn_inceptionnext_t.py', '../_base_/voc12aug.py']
model = dict(decode_head=dict(num_classes=21))
