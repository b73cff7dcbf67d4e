# ConvNeXt-T, timm's, under this project's recipe; ConvNeXt's own has rate 1e-4, decay 0.05 and layer-wise rates.
_base_ = '../_base_/upernet_ade20k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='NormedTIMMBackbone',
        model_name='convnext_tiny.fb_in1k',
        pretrained=True,
        drop_path_rate=0.4))
