"""What the paper's tables state (InceptionNeXt, CVPR 2024, arXiv 2303.16900), and the configs of their models."""
import os.path as osp
from typing import Dict, NamedTuple, Optional, Tuple

SPEED = ('A100 train img/s', 'A100 infer img/s')
ATTO_NOTE = 'widths 40, 80, 160, 320 as in the authors\' code; the table prints 40, 90, 180, 320'
ATTENTION_NOTE = '12 blocks, as in DeiT-S: 18 would have 33 M and 7 G'
S24_NOTE = 'neck and head add 3.8 M to every size (S36: 30.9 to 34.6), and the trunk of S24 alone has 21.4'
S36_NOTE = 'its poolings, 0.15 G at nine operations a pixel, are not counted: 47.57 would print as 48'
NO_PVT = 'no maintained PVT is at hand: timm has PVTv2, MMSegmentation none'


class Entry(NamedTuple):
    """One model of a table.

    Attributes:
        name: as the table has it.
        config: file under ``configs/``; None if the model cannot be built here.
        params: millions of parameters as printed, an empty string if the table has none.
        macs: billions of multiply-accumulates as printed, an empty string if the table has none.
        quoted: the columns that need training or the authors' machine, as printed.
        note: why it differs or cannot be built.
        side: side of the image in pixels, for classifiers.
    """
    name: str
    config: Optional[str]
    params: str = ''
    macs: str = ''
    quoted: Tuple[str, ...] = ()
    note: str = ''
    side: int = 224


class PaperTable(NamedTuple):
    """One table: what counts, and its models.

    Attributes:
        title: what the table shows.
        shape: height and width for segmentors; None for classifiers, of which the backbone counts under ``head``.
        head: the classifier: ``linear`` (LayerNorm and one layer) or ``mlp`` (InceptionNeXt's two layers).
        quoted: names of the columns that are quoted.
        entries: the models.
    """
    title: str
    shape: Optional[Tuple[int, int]]
    head: str
    quoted: Tuple[str, ...]
    entries: Tuple[Entry, ...]


def _ablation(name: str, variant: str, *quoted: str) -> Entry:
    return Entry(name, f'ablations/upernet_inceptionnext_t_{variant}_ade20k.py', quoted=quoted)


def _partial(kernel: int, ratio: str, variant: str, params: str, macs: str, *quoted: str) -> Entry:
    return Entry(f'{kernel} x {kernel}, ratio {ratio}', f'ablations/upernet_metanext_t_{variant}_ade20k.py', params,
                 macs, quoted)


def _segmentor(name: str, config: Optional[str], params: str, macs: str, *quoted: str, note: str = '') -> Entry:
    return Entry(name, config and f'{config}_ade20k.py', params, macs, quoted, note)


TABLES: Dict[int, PaperTable] = {
    1: PaperTable(
        'ConvNeXt-T with a smaller or partial depthwise convolution', None, 'linear', (*SPEED, 'top-1'), (
            _partial(7, '1', 'dw7', '28.6', '4.5', '575', '2413', '82.1'),
            _partial(5, '1', 'dw5', '28.4', '4.4', '675', '2704', '82.0'),
            _partial(3, '1', 'dw3', '28.3', '4.4', '798', '2802', '81.5'),
            _partial(3, '1/2', 'dw3-1of2', '28.3', '4.4', '818', '2740', '81.4'),
            _partial(3, '3/8', 'dw3-3of8', '28.3', '4.4', '847', '2762', '81.4'),
            _partial(3, '1/4', 'dw3-1of4', '28.3', '4.4', '871', '2808', '81.3'),
            _partial(3, '1/8', 'dw3-1of8', '28.3', '4.4', '901', '2833', '80.8'),
            _partial(3, '1/16', 'dw3-1of16', '28.3', '4.4', '916', '2846', '80.1'))),
    3: PaperTable(
        'InceptionNeXt classifiers', None, 'mlp', (), (
            Entry('InceptionNeXt-A', 'upernet_inceptionnext_a_ade20k.py', '4.2', '0.5', note=ATTO_NOTE),
            Entry('InceptionNeXt-T', 'upernet_inceptionnext_t_ade20k.py', '28.1', '4.2'),
            Entry('InceptionNeXt-S', 'upernet_inceptionnext_s_ade20k.py', '49.4', '8.4'),
            Entry('InceptionNeXt-B', 'upernet_inceptionnext_b_ade20k.py', '86.7', '14.9'),
            Entry('InceptionNeXt-B at 384', 'upernet_inceptionnext_b_ade20k.py', '86.7', '43.6', side=384))),
    5: PaperTable(
        'isotropic models', None, 'linear', ('top-1', ), (
            Entry('ConvNeXt-S (iso.)', 'ablations/upernet_convnext-iso_s_ade20k.py', '22', '4.3', ('', )),
            Entry('InceptionNeXt-S (iso.)', 'ablations/upernet_inceptionnext-iso_s_ade20k.py', '22', '4.2', ('', )),
            Entry('MetaNeXt-Attn', 'ablations/upernet_metanext-attn_s_ade20k.py', '22', '4.6', ('3.9', ),
                  ATTENTION_NOTE))),
    6: PaperTable(
        'UPerNet on ADE20K, MACs at 512 x 2048', (512, 2048), '', ('2080Ti FPS', 'mIoU'), (
            _segmentor('Swin-T', 'peers/upernet_swin_t', '60', '945', '20.6', '45.8'),
            _segmentor('ConvNeXt-T', 'peers/upernet_convnext_t', '60', '939', '20.6', '46.7'),
            _segmentor('InceptionNeXt-T', 'upernet_inceptionnext_t', '56', '933', '22.7', '47.9'),
            _segmentor('Swin-S', 'peers/upernet_swin_s', '81', '1038', '16.2', '49.5'),
            _segmentor('ConvNeXt-S', 'peers/upernet_convnext_s', '82', '1027', '16.8', '49.6'),
            _segmentor('InceptionNeXt-S', 'upernet_inceptionnext_s', '78', '1020', '17.6', '50.0'),
            _segmentor('Swin-B', 'peers/upernet_swin_b', '121', '1188', '16.2', '49.7'),
            _segmentor('ConvNeXt-B', 'peers/upernet_convnext_b', '122', '1170', '15.7', '49.9'),
            _segmentor('InceptionNeXt-B', 'upernet_inceptionnext_b', '115', '1159', '17.5', '50.6'))),
    7: PaperTable(
        'Semantic FPN on ADE20K, MACs at 512 x 512', (512, 512), '', ('2080Ti FPS', 'mIoU'), (
            _segmentor('ResNet-50', 'peers/fpn_resnet_50', '29', '46', '30.2', '36.7'),
            _segmentor('PVT-Small', None, '28', '45', '27.2', '39.8', note=NO_PVT),
            _segmentor('PoolFormer-S24', 'peers/fpn_poolformer_s24', '23', '39', '28.8', '40.3', note=S24_NOTE),
            _segmentor('InceptionNeXt-T', 'fpn_inceptionnext_t', '28', '44', '31.4', '43.1'),
            _segmentor('ResNet-101', 'peers/fpn_resnet_101', '48', '65', '22.2', '38.8'),
            _segmentor('ResNeXt-101-32x4d', 'peers/fpn_resnext_101-32x4d', '47', '65', '', '39.7'),
            _segmentor('PVT-Medium', None, '48', '61', '20.0', '41.6', note=NO_PVT),
            _segmentor('PoolFormer-S36', 'peers/fpn_poolformer_s36', '35', '48', '21.6', '42.0', note=S36_NOTE),
            _segmentor('PoolFormer-M36', 'peers/fpn_poolformer_m36', '60', '68', '15.4', '42.4'),
            _segmentor('InceptionNeXt-S', 'fpn_inceptionnext_s', '50', '65', '20.7', '45.6'),
            _segmentor('PVT-Large', None, '65', '80', '16.0', '42.1', note=NO_PVT),
            _segmentor('ResNeXt-101-64x4d', 'peers/fpn_resnext_101-64x4d', '86', '104', '', '40.2'),
            _segmentor('PoolFormer-M48', 'peers/fpn_poolformer_m48', '77', '82', '12.1', '42.7'),
            _segmentor('InceptionNeXt-B', 'fpn_inceptionnext_b', '85', '100', '20.2', '46.4'))),
    8: PaperTable(
        'ablation of InceptionNeXt-T', None, 'mlp', (*SPEED, 'top-1'), (
            Entry('baseline', 'upernet_inceptionnext_t_ade20k.py', quoted=('901', '2900', '82.3')),
            _ablation('no horizontal band', 'no-band-w', '947', '3093', '81.9'),
            _ablation('no vertical band', 'no-band-h', '954', '3173', '81.9'),
            _ablation('no 3 x 3', 'no-square', '940', '3004', '82.0'),
            _ablation('bands in sequence', 'sequential', '903', '2971', '82.1'),
            _ablation('band kernel 7', 'band7', '905', '2946', '82.1'),
            _ablation('band kernel 9', 'band9', '904', '2916', '82.1'),
            _ablation('band kernel 13', 'band13', '896', '2895', '82.0'),
            _ablation('ratio 1/4', '1of4', '834', '2499', '82.2'),
            _ablation('ratio 1/16', '1of16', '936', '3097', '81.8'),
            _ablation('LayerNorm for BatchNorm', 'ln', '721', '2646', '82.4'))),
}

class Classifier(NamedTuple):
    """One row of table 4, ImageNet-1K at 224 x 224: images a second on an A100, and the accuracy in percent."""
    name: str
    train: int
    infer: int
    top1: float


# Table 4 by timm's names; the paper has the faster memory format of each.
TABLE_4 = {
    'inception_next_atto': Classifier('InceptionNeXt-A', 2661, 9876, 75.3),
    'inception_next_tiny': Classifier('InceptionNeXt-T', 901, 2900, 82.3),
    'inception_next_small': Classifier('InceptionNeXt-S', 521, 1750, 83.5),
    'inception_next_base': Classifier('InceptionNeXt-B', 375, 1244, 84.0),
    'convnext_atto': Classifier('ConvNeXt-A', 835, 4539, 75.7),
    'convnext_tiny': Classifier('ConvNeXt-T', 575, 2413, 82.1),
    'convnext_small': Classifier('ConvNeXt-S', 361, 1535, 83.1),
    'convnext_base': Classifier('ConvNeXt-B', 267, 1122, 83.8),
    'resnet50': Classifier('ResNet-50', 969, 3149, 78.4),
    'swin_tiny_patch4_window7_224': Classifier('Swin-T', 564, 1768, 81.3),
}
# Its accuracy by backbone and size, as configs are named: inceptionnext_t, resnet_50.
TOP1 = {row.name.lower().replace('-', '_'): row.top1 for row in TABLE_4.values()}


def published_accuracy(config: str, backbone_only: bool) -> Optional[float]:
    """The paper's accuracy of a config's model: mIoU on ADE20K, or top-1 on ImageNet-1K of its backbone.

    Args:
        config: path of the config; its name decides.
        backbone_only: ask for the backbone's.
    """
    name = osp.basename(config)
    numbers, column = ((1, 5, 8), 'top-1') if backbone_only else ((6, 7), 'mIoU')
    for table in map(TABLES.get, numbers):
        for entry in table.entries:
            value = dict(zip(table.quoted, entry.quoted)).get(column)
            if entry.config and osp.basename(entry.config) == name and value:
                return float(value)
    head, backbone, *rest = name.split('_')
    return TOP1.get(f'{backbone}_{rest[0]}') if backbone_only and len(rest) == 2 else None
