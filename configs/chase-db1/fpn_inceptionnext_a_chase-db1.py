# Few pixels are of a vessel: Dice counts in the loss, and chooses the best checkpoint.
_base_ = ['../_base_/models/fpn_inceptionnext_a.py', '../_base_/chase-db1.py']
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    decode_head=dict(
        num_classes=2,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=1.0),
            dict(type='DiceLoss', loss_name='loss_dice', loss_weight=3.0)
        ]),
    test_cfg=dict(mode='slide', crop_size=(128, 128), stride=(85, 85)))
default_hooks = dict(checkpoint=dict(save_best='mDice'))
