_base_ = ['../_base_/models/upernet_inceptionnext_b.py', '../_base_/pascal-context-59.py']
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=59),
    auxiliary_head=dict(num_classes=59),
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)))
