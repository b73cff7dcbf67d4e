# Peer of fpn_inceptionnext_a_camvid.py: timm's convnext_atto through MMSegmentation's TIMMBackbone.
_base_ = './fpn_inceptionnext_a_camvid.py'
model = dict(backbone=dict(_delete_=True, type='TIMMBackbone', model_name='convnext_atto', pretrained=False))
