# Cross-entropy and three times the Dice loss, for classes of few pixels. Ours, untrained.
_base_ = '../fpn_inceptionnext_t_ade20k.py'
model = dict(
    decode_head=dict(loss_decode=[
        dict(type='CrossEntropyLoss', loss_weight=1.0),
        dict(type='DiceLoss', use_sigmoid=False, loss_weight=3.0),
    ]))
