_base_ = ['../_base_/models/upernet_inceptionnext_t.py', '../_base_/potsdam.py']
model = dict(decode_head=dict(num_classes=6), auxiliary_head=dict(num_classes=6))
