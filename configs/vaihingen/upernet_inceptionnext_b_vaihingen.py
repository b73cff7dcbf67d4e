_base_ = ['../_base_/models/upernet_inceptionnext_b.py', '../_base_/vaihingen.py']
model = dict(decode_head=dict(num_classes=6), auxiliary_head=dict(num_classes=6))
