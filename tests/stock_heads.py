"""The decode heads of MMSegmentation, narrow, on a narrow InceptionNeXt."""
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_inceptionnext.models.sync_bn import without_sync_bn

from utils import randomise

BN, DIMS = dict(type='BN'), [8, 16, 24, 32]
INCEPTIONNEXT = dict(type='InceptionNeXt', arch=dict(depths=(1, 1, 1, 1), dims=DIMS), norm_cfg=BN, out_norm_cfg=BN)
LAST, ALL = dict(in_channels=32, in_index=3), dict(in_channels=DIMS, in_index=[0, 1, 2, 3])
COMMON = dict(channels=16, num_classes=5, norm_cfg=BN, align_corners=False)
PLAIN = dict(type='FCNHead', num_convs=1, concat_input=False)
UPDATE = dict(
    type='KernelUpdateHead', num_classes=5, num_ffn_fcs=2, num_heads=2, num_mask_fcs=1, feedforward_channels=16,
    in_channels=16, out_channels=16, conv_kernel_size=1, kernel_updator_cfg=dict(
        type='KernelUpdator', in_channels=16, feat_channels=16, out_channels=16, norm_cfg=dict(type='LN')))
STOCK = {
    'ANN': dict(type='ANNHead', in_channels=[24, 32], in_index=[2, 3], project_channels=8),
    'APC': dict(type='APCHead', pool_scales=(1, 2), fusion=True, **LAST),
    'ASPP': dict(type='ASPPHead', dilations=(1, 2), **LAST),
    'separable ASPP': dict(type='DepthwiseSeparableASPPHead', dilations=(1, 2), c1_in_channels=8, c1_channels=4,
                           **LAST),
    'DANet': dict(type='DAHead', pam_channels=8, **LAST),
    'dynamic filters': dict(type='DMHead', filter_sizes=(1, 3), fusion=True, **LAST),
    'DNL': dict(type='DNLHead', reduction=2, mode='embedded_gaussian', **LAST),
    'EMA': dict(type='EMAHead', ema_channels=16, num_bases=8, num_stages=2, **LAST),
    'Enc': dict(type='EncHead', num_codes=4, add_lateral=True, loss_se_decode=dict(
        type='CrossEntropyLoss', use_sigmoid=True), in_channels=[16, 24, 32], in_index=[1, 2, 3]),
    'FCN': dict(type='FCNHead', input_transform='resize_concat', **ALL),
    'FPN': dict(type='FPNHead', feature_strides=[4, 8, 16, 32], **ALL),
    'GC': dict(type='GCHead', **LAST),
    'Ham': dict(type='LightHamHead', ham_channels=16, ham_kwargs=dict(MD_S=2, MD_R=4, train_steps=2, eval_steps=2),
                in_channels=[16, 24, 32], in_index=[1, 2, 3]),
    'ISA': dict(type='ISAHead', isa_channels=8, down_factor=(2, 2), **LAST),
    'K-Net': dict(type='IterativeDecodeHead', num_stages=1, kernel_update_head=[UPDATE],
                  kernel_generate_head=dict(PLAIN, **COMMON, **LAST)),
    'NL': dict(type='NLHead', **LAST),
    'PSP': dict(type='PSPHead', pool_scales=(1, 2), **LAST),
    'SegFormer': dict(type='SegformerHead', **ALL),
    'Segmenter': dict(type='SegmenterMaskTransformerHead', num_layers=1, num_heads=2, embed_dims=16,
                      norm_cfg=dict(type='LN'), **LAST),
    'separable FCN': dict(type='DepthwiseSeparableFCNHead', **LAST),
    'STDC': dict(type='STDCHead', loss_decode=[
        dict(type='CrossEntropyLoss', loss_name='loss_ce'), dict(type='DiceLoss', loss_name='loss_dice')], **LAST),
    'UPer': dict(type='UPerHead', **ALL),
    'fast UPer': dict(type='FastUPerHead', **ALL),
    'pre-activated': dict(type='SETRUPHead', num_convs=2, norm_layer=dict(type='LN'), **LAST),
}
OTHERS = {  # what they need that four maps are not, or what else runs them
    'CCHead': 'compiled operators', 'PSAHead': 'compiled operators', 'DDRHead': 'its own backbone',
    'PIDHead': 'its own backbone', 'SideAdapterCLIPHead': 'its own backbone', 'DPTHead': 'maps of a transformer',
    'SETRMLAHead': 'maps of one size', 'VPDDepthHead': 'a diffusion model', 'MaskFormerHead': 'MMDetection',
    'Mask2FormerHead': 'MMDetection', 'LRASPPHead': 'larger images', 'OCRHead': 'a cascade', 'PointHead': 'a cascade',
}


def segmentor(head, backbone=INCEPTIONNEXT, kind='MemoryEfficientEncoderDecoder', **kwargs):
    """In float64, with random weights; for a list of heads ``kind`` is a cascade."""
    init_default_scope('mmseg')
    heads = [{**({} if one['type'] == 'IterativeDecodeHead' else COMMON), **one}
             for one in (head if isinstance(head, list) else [head])]
    cfg = Config(dict(model=dict(
        type=kind, backbone=backbone, data_preprocessor=dict(type='SegDataPreProcessor'), test_cfg=dict(mode='whole'),
        decode_head=heads if isinstance(head, list) else heads[0], **kwargs)))
    return randomise(without_sync_bn(MODELS.build(cfg.model))).double().eval()
