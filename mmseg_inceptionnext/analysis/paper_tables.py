"""Rebuilds the paper's tables: parameters and MACs counted now, beside what is printed there."""
import os.path as osp
from typing import List, NamedTuple, Sequence

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import InceptionDWConv2d, PartialDWConv2d

from .complexity import Part, count_complexity, count_modules
from .paper import TABLES, Entry, PaperTable

NUMBERS = (1, 2, *sorted(TABLES)[1:])
MAC_TOLERANCE = 0.01  # the paper's counter adds some elementwise work


class Row(NamedTuple):
    """One line: the cells, what does not agree with the paper (empty if nothing), and why."""
    cells: List[str]
    difference: str
    reason: str = ''


class Table(NamedTuple):
    """A table to print."""
    title: str
    columns: List[str]
    rows: List[Row]


def paper_table(number: int, configs: str = 'configs') -> Table:
    """Rebuilds one of :data:`NUMBERS` from this project's folder of configs."""
    if number == 2:
        return _operators()
    paper = TABLES[number]
    title = f'Table {number}: {paper.title}' + '; with the classifier, MACs at 224 x 224' * (paper.shape is None)
    columns = ['model', 'params (M)', 'paper', 'MACs (G)', 'paper', *(f"paper's {name}" for name in paper.quoted)]
    return Table(title, columns, [_row(entry, paper, configs) for entry in paper.entries])


def _row(entry: Entry, paper: PaperTable, configs: str) -> Row:
    quoted = [value or '-' for value in entry.quoted]
    if entry.config is None:
        return Row([entry.name, '-', entry.params, '-', entry.macs, *quoted], 'cannot be built here', entry.note)
    part = _count(entry, paper, osp.join(configs, f'{entry.config}_ade20k.py'))
    params, macs = part.params / 1e6, part.macs / 1e9
    wrong = []
    if entry.params and f'{params:.{_digits(entry.params)}f}' != entry.params:
        wrong.append(f'{params:.2f} M parameters, the paper has {entry.params}')
    if entry.macs and abs(macs - float(entry.macs)) > max(
            0.5 * 10.**-_digits(entry.macs), MAC_TOLERANCE * float(entry.macs)):
        wrong.append(f'{macs:.2f} G MACs, the paper has {entry.macs}')
    cells = [entry.name, f'{params:.2f}', entry.params or '-', f'{macs:.2f}', entry.macs or '-', *quoted]
    return Row(cells, '; '.join(wrong), entry.note)


def _digits(printed: str) -> int:
    return len(printed.partition('.')[2])


def _count(entry: Entry, paper: PaperTable, config: str) -> Part:
    cfg = load_config(config)
    if paper.shape:
        return count_complexity(cfg, paper.shape)[-1]
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    backbone = MODELS.build(dict(cfg.model.backbone, out_norm_cfg=None))
    channels = backbone.out_channels[-1]
    layers = [nn.LayerNorm(channels)]
    if paper.head == 'mlp':
        layers = [nn.Linear(channels, 3 * channels), nn.GELU(), nn.LayerNorm(3 * channels)]
    classifier = nn.Sequential(backbone, nn.Sequential(*layers, nn.Linear(layers[-1].normalized_shape[0], 1000)))
    shape = (1, 3, entry.side, entry.side)
    return count_modules(classifier, lambda x: classifier[1](backbone(x)[-1].mean((2, 3))), shape)['']


def _operators(c: int = 96, k: int = 11, h: int = 56, w: int = 56) -> Table:
    """Table 2: its formulas, and what the modules count to. A MAC is two FLOPs; biases are not in the formulas."""
    rows = []
    for name, module, formula, params in (
            ('convolution', nn.Conv2d(c, c, k, padding=k // 2), 'k^2 C^2', k**2 * c**2),
            ('depthwise convolution', PartialDWConv2d(c, k), 'k^2 C', k**2 * c),
            ('Inception depthwise convolution', InceptionDWConv2d(c, band_kernel_size=k), '(2k + 9) C / 8',
             (2 * k + 9) * c // 8)):
        found, expected = sum(p.numel() for p in module.parameters() if p.ndim > 1), 2 * params * h * w
        flops = 2 * count_modules(module, module, (1, c, h, w))[''].macs
        rows.append(Row([name, formula, f'{found:,}', f'{params:,}', f'2 H W {formula}', f'{flops:,}', f'{expected:,}'],
                        '' if (found, flops) == (params, expected) else 'counts differ from the formula'))
    columns = ['operator', 'params', 'counted', 'by formula', 'FLOPs', 'counted', 'by formula']
    return Table(f'Table 2: cost of operators, for C = {c}, k = {k}, H x W = {h} x {w}', columns, rows)


def unexplained(tables: Sequence[Table]) -> List[Row]:
    """The rows that differ from the paper without a reason."""
    return [row for table in tables for row in table.rows if row.difference and not row.reason]
