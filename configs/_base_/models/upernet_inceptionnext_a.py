_base_ = './upernet_inceptionnext.py'
checkpoint = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_atto.pth'
model = dict(
    backbone=dict(
        arch='atto',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160))
