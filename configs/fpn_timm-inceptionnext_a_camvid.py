# Peer of fpn_inceptionnext_a_camvid.py: timm's inception_next_atto through MMSegmentation's TIMMBackbone.
_base_ = './fpn_inceptionnext_a_camvid.py'
model = dict(backbone=dict(_delete_=True, type='TIMMBackbone', model_name='inception_next_atto', pretrained=False))
