"""What the paper's tables state (InceptionNeXt, CVPR 2024, arXiv 2303.16900), and the configs of their models."""
from typing import Dict, NamedTuple, Optional, Tuple

TIMM = 'timm://'  # before the names of timm's models, in the place of a config
METANEXT, ABLATION = 'pretrain/metanext_t', 'pretrain/inceptionnext_t'
SPEED = ('A100 train img/s', 'A100 infer img/s')
ATTO_NOTE = 'widths 40, 80, 160, 320 as in the authors\' code; the table prints 40, 90, 180, 320'
ATTENTION_NOTE = '12 blocks, as in DeiT-S: 18 would have 33 M and 7 G'
S24_NOTE = 'neck and head add 3.8 M to every size (S36: 30.9 to 34.6), and the trunk of S24 alone has 21.4'
S36_NOTE = 'its poolings, 0.15 G at nine operations a pixel, are not counted: 47.57 would print as 48'
SWIN_NOTE = 'its own paper, too, has 29 for these 28.29'
NO_PVT = 'no maintained PVT is at hand: timm has PVTv2, MMSegmentation none'


class Entry(NamedTuple):
    """One model of a table, its numbers as printed, empty where the table has none."""
    name: str
    config: Optional[str]  # under configs/, without .py, or timm's name; None if the model cannot be built here
    params: str = ''  # millions
    macs: str = ''  # billions of multiply-accumulates
    quoted: Tuple[str, ...] = ()  # what needs training or the authors' machine
    note: str = ''  # why it differs or cannot be built
    side: int = 224  # of the image in pixels, for classifiers


class PaperTable(NamedTuple):
    """One table."""
    title: str
    shape: Optional[Tuple[int, int]]  # height and width of the image for segmentors; None for classifiers
    quoted: Tuple[str, ...]  # names of the columns that are quoted
    entries: Tuple[Entry, ...]


class Classifier(NamedTuple):
    """One row of table 4, ImageNet-1K at 224 x 224: images a second on an A100, and the accuracy in percent."""
    train: int
    infer: int
    top1: float


# Table 4 by timm's names; the paper has the faster memory format of each.
TABLE_4 = {
    'inception_next_atto': Classifier(2661, 9876, 75.3),
    'inception_next_tiny': Classifier(901, 2900, 82.3),
    'inception_next_small': Classifier(521, 1750, 83.5),
    'inception_next_base': Classifier(375, 1244, 84.0),
    'convnext_atto': Classifier(835, 4539, 75.7),
    'convnext_tiny': Classifier(575, 2413, 82.1),
    'convnext_small': Classifier(361, 1535, 83.1),
    'convnext_base': Classifier(267, 1122, 83.8),
    'resnet50': Classifier(969, 3149, 78.4),
    'swin_tiny_patch4_window7_224': Classifier(564, 1768, 81.3),
}


def _classifier(name: str, timm_name: str, params: str, macs: str, arch: str = '', note: str = '') -> Entry:
    config = f'pretrain/inceptionnext_{arch}_in1k' if arch else TIMM + timm_name
    return Entry(name, config, params, macs, tuple(map(str, TABLE_4[timm_name])), note)


TABLES: Dict[int, PaperTable] = {
    1: PaperTable(
        'ConvNeXt-T with a smaller or partial depthwise convolution', None, (*SPEED, 'top-1'), (
            Entry('7 x 7, ratio 1', f'{METANEXT}_dw7_in1k', '28.6', '4.5', ('575', '2413', '82.1')),
            Entry('5 x 5, ratio 1', f'{METANEXT}_dw5_in1k', '28.4', '4.4', ('675', '2704', '82.0')),
            Entry('3 x 3, ratio 1', f'{METANEXT}_dw3_in1k', '28.3', '4.4', ('798', '2802', '81.5')),
            Entry('3 x 3, ratio 1/2', f'{METANEXT}_dw3-1of2_in1k', '28.3', '4.4', ('818', '2740', '81.4')),
            Entry('3 x 3, ratio 3/8', f'{METANEXT}_dw3-3of8_in1k', '28.3', '4.4', ('847', '2762', '81.4')),
            Entry('3 x 3, ratio 1/4', f'{METANEXT}_dw3-1of4_in1k', '28.3', '4.4', ('871', '2808', '81.3')),
            Entry('3 x 3, ratio 1/8', f'{METANEXT}_dw3-1of8_in1k', '28.3', '4.4', ('901', '2833', '80.8')),
            Entry('3 x 3, ratio 1/16', f'{METANEXT}_dw3-1of16_in1k', '28.3', '4.4', ('916', '2846', '80.1')))),
    3: PaperTable(
        'InceptionNeXt classifiers', None, (), (
            Entry('InceptionNeXt-A', 'pretrain/inceptionnext_a_in1k', '4.2', '0.5', note=ATTO_NOTE),
            Entry('InceptionNeXt-T', 'pretrain/inceptionnext_t_in1k', '28.1', '4.2'),
            Entry('InceptionNeXt-S', 'pretrain/inceptionnext_s_in1k', '49.4', '8.4'),
            Entry('InceptionNeXt-B', 'pretrain/inceptionnext_b_in1k', '86.7', '14.9'),
            Entry('InceptionNeXt-B at 384', 'pretrain/inceptionnext_b_in1k_384', '86.7', '43.6', side=384))),
    4: PaperTable(
        'ImageNet-1K', None, ('A100 train img/s', 'A100 infer img/s', 'top-1'), (
            _classifier('ConvNeXt-A', 'convnext_atto', '3.7', '0.55'),
            _classifier('InceptionNeXt-A', 'inception_next_atto', '4.2', '0.5', 'a', ATTO_NOTE),
            _classifier('ResNet-50', 'resnet50', '26', '4.1'),
            _classifier('Swin-T', 'swin_tiny_patch4_window7_224', '29', '4.5', note=SWIN_NOTE),
            _classifier('ConvNeXt-T', 'convnext_tiny', '29', '4.5'),
            _classifier('InceptionNeXt-T', 'inception_next_tiny', '28', '4.2', 't'),
            _classifier('ConvNeXt-S', 'convnext_small', '50', '8.7'),
            _classifier('InceptionNeXt-S', 'inception_next_small', '49', '8.4', 's'),
            _classifier('ConvNeXt-B', 'convnext_base', '89', '15.4'),
            _classifier('InceptionNeXt-B', 'inception_next_base', '87', '14.9', 'b'),
            Entry('ConvNeXt-B at 384', f'{TIMM}convnext_base', '89', '45.0', ('95', '393', '85.1'), side=384),
            Entry('InceptionNeXt-B at 384', 'pretrain/inceptionnext_b_in1k_384', '87', '43.6', ('139', '428', '85.2'),
                  side=384))),
    5: PaperTable(
        'isotropic models', None, ('top-1', ), (
            Entry('ConvNeXt-S (iso.)', 'pretrain/convnext-iso_s_in1k', '22', '4.3', ('', )),
            Entry('InceptionNeXt-S (iso.)', 'pretrain/inceptionnext-iso_s_in1k', '22', '4.2', ('', )),
            Entry('MetaNeXt-Attn', 'pretrain/metanext-attn_s_in1k', '22', '4.6', ('3.9', ), ATTENTION_NOTE))),
    6: PaperTable(
        'UPerNet on ADE20K, MACs at 512 x 2048', (512, 2048), ('2080Ti FPS', 'mIoU'), (
            Entry('Swin-T', 'peers/upernet_swin_t_ade20k', '60', '945', ('20.6', '45.8')),
            Entry('ConvNeXt-T', 'peers/upernet_convnext_t_ade20k', '60', '939', ('20.6', '46.7')),
            Entry('InceptionNeXt-T', 'upernet_inceptionnext_t_ade20k', '56', '933', ('22.7', '47.9')),
            Entry('Swin-S', 'peers/upernet_swin_s_ade20k', '81', '1038', ('16.2', '49.5')),
            Entry('ConvNeXt-S', 'peers/upernet_convnext_s_ade20k', '82', '1027', ('16.8', '49.6')),
            Entry('InceptionNeXt-S', 'upernet_inceptionnext_s_ade20k', '78', '1020', ('17.6', '50.0')),
            Entry('Swin-B', 'peers/upernet_swin_b_ade20k', '121', '1188', ('16.2', '49.7')),
            Entry('ConvNeXt-B', 'peers/upernet_convnext_b_ade20k', '122', '1170', ('15.7', '49.9')),
            Entry('InceptionNeXt-B', 'upernet_inceptionnext_b_ade20k', '115', '1159', ('17.5', '50.6')))),
    7: PaperTable(
        'Semantic FPN on ADE20K, MACs at 512 x 512', (512, 512), ('2080Ti FPS', 'mIoU'), (
            Entry('ResNet-50', 'peers/fpn_resnet_50_ade20k', '29', '46', ('30.2', '36.7')),
            Entry('PVT-Small', None, '28', '45', ('27.2', '39.8'), NO_PVT),
            Entry('PoolFormer-S24', 'peers/fpn_poolformer_s24_ade20k', '23', '39', ('28.8', '40.3'), S24_NOTE),
            Entry('InceptionNeXt-T', 'fpn_inceptionnext_t_ade20k', '28', '44', ('31.4', '43.1')),
            Entry('ResNet-101', 'peers/fpn_resnet_101_ade20k', '48', '65', ('22.2', '38.8')),
            Entry('ResNeXt-101-32x4d', 'peers/fpn_resnext_101-32x4d_ade20k', '47', '65', ('', '39.7')),
            Entry('PVT-Medium', None, '48', '61', ('20.0', '41.6'), NO_PVT),
            Entry('PoolFormer-S36', 'peers/fpn_poolformer_s36_ade20k', '35', '48', ('21.6', '42.0'), S36_NOTE),
            Entry('PoolFormer-M36', 'peers/fpn_poolformer_m36_ade20k', '60', '68', ('15.4', '42.4')),
            Entry('InceptionNeXt-S', 'fpn_inceptionnext_s_ade20k', '50', '65', ('20.7', '45.6')),
            Entry('PVT-Large', None, '65', '80', ('16.0', '42.1'), NO_PVT),
            Entry('ResNeXt-101-64x4d', 'peers/fpn_resnext_101-64x4d_ade20k', '86', '104', ('', '40.2')),
            Entry('PoolFormer-M48', 'peers/fpn_poolformer_m48_ade20k', '77', '82', ('12.1', '42.7')),
            Entry('InceptionNeXt-B', 'fpn_inceptionnext_b_ade20k', '85', '100', ('20.2', '46.4')))),
    8: PaperTable(
        'ablation of InceptionNeXt-T', None, (*SPEED, 'top-1'), (
            Entry('baseline', f'{ABLATION}_in1k', quoted=('901', '2900', '82.3')),
            Entry('no horizontal band', f'{ABLATION}_no-band-w_in1k', quoted=('947', '3093', '81.9')),
            Entry('no vertical band', f'{ABLATION}_no-band-h_in1k', quoted=('954', '3173', '81.9')),
            Entry('no 3 x 3', f'{ABLATION}_no-square_in1k', quoted=('940', '3004', '82.0')),
            Entry('bands in sequence', f'{ABLATION}_sequential_in1k', quoted=('903', '2971', '82.1')),
            Entry('band kernel 7', f'{ABLATION}_band7_in1k', quoted=('905', '2946', '82.1')),
            Entry('band kernel 9', f'{ABLATION}_band9_in1k', quoted=('904', '2916', '82.1')),
            Entry('band kernel 13', f'{ABLATION}_band13_in1k', quoted=('896', '2895', '82.0')),
            Entry('ratio 1/4', f'{ABLATION}_1of4_in1k', quoted=('834', '2499', '82.2')),
            Entry('ratio 1/16', f'{ABLATION}_1of16_in1k', quoted=('936', '3097', '81.8')),
            Entry('LayerNorm for BatchNorm', f'{ABLATION}_ln_in1k', quoted=('721', '2646', '82.4')))),
}


# Table 9: how the models of table 4 are trained, by config. What it leaves open is of the authors' scripts.
RECIPE = ('learning rate', 'batch', 'epochs', 'epochs of warm-up', 'weight decay', 'drop path', 'RandAugment', 'Mixup',
          'CutMix', 'random erasing', 'label smoothing', 'dropout of the head', 'averaged weights')
_TABLE_9 = (4e-3, 4096, 300, 20, 0.05, 0.1, '9/0.5', 0.8, 1.0, 0.25, 0.1, 0., 'no')
TABLE_9 = {
    'inceptionnext_a_in1k': (1e-3, 1280, 450, 5, 0.05, 0.1, '5/101', 0.2, 1.0, 0.1, 0.1, 0., 'no'),
    'inceptionnext_t_in1k': _TABLE_9,
    'inceptionnext_s_in1k': (*_TABLE_9[:5], 0.3, *_TABLE_9[6:]),
    'inceptionnext_b_in1k': (*_TABLE_9[:5], 0.4, *_TABLE_9[6:]),
    'inceptionnext_b_in1k_384': (5e-5, 1024, 30, 0, 0.05, 0.7, '9/0.5', 0., 0., 0.25, 0.1, 0.5, '0.9999'),
}
