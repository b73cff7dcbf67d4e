# OCRNet: a coarse prediction of the third map gathers what the last, of the same size, says of each class. Ours,
# untrained.
_base_ = '../upernet_inceptionnext_t_ade20k.py'
common = dict(num_classes=150, norm_cfg=_base_.norm_cfg)
coarse = dict(type='CrossEntropyLoss', loss_weight=0.4)
model = dict(
    type='CascadeEncoderDecoder',
    num_stages=2,
    backbone=dict(dilations=(1, 1, 1, 2), out_indices=(2, 3)),
    decode_head=[
        dict(type='FCNHead', in_channels=384, in_index=0, channels=256, num_convs=1, concat_input=False,
             loss_decode=coarse, **common),
        dict(type='OCRHead', in_channels=768, in_index=1, channels=512, ocr_channels=256, **common),
    ],
    auxiliary_head=None)
