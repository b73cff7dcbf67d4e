"""Rebuilds the paper's tables: parameters and MACs counted now, beside what is printed there."""
import os.path as osp
from typing import Iterator, List, NamedTuple, Tuple

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import InceptionDWConv2d, PartialDWConv2d

from .complexity import Part, count_complexity, count_modules
from .paper import TABLES, Entry, PaperTable

NUMBERS = (1, 2, *sorted(TABLES)[1:])
MAC_TOLERANCE = 0.01  # the paper's counter adds some elementwise work
OPERATOR_CASE = dict(channels=96, kernel=11, height=56, width=56)  # for table 2, which prints formulas


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
    """Rebuilds a table.

    Args:
        number: one of ``NUMBERS``.
        configs: folder of this project's configs.

    Raises:
        ConfigError: if a config is missing.
    """
    if number == 2:
        return _operators()
    paper = TABLES[number]
    title = f'Table {number}: {paper.title}'
    title += '; with the classifier, MACs at 224 x 224' if paper.shape is None else ''
    columns = ['model', 'params (M)', 'paper', 'MACs (G)', 'paper', *(f"paper's {name}" for name in paper.quoted)]
    return Table(title, columns, [_row(entry, paper, configs) for entry in paper.entries])


def _row(entry: Entry, paper: PaperTable, configs: str) -> Row:
    quoted = [value or '-' for value in entry.quoted]
    if entry.config is None:
        return Row([entry.name, '-', entry.params, '-', entry.macs, *quoted], 'cannot be built here', entry.note)
    part = _count(entry, paper, osp.join(configs, entry.config))
    params, macs = part.params / 1e6, part.macs / 1e9
    digits = len(entry.params.partition('.')[2])
    wrong = []
    if entry.params and f'{params:.{digits}f}' != entry.params:
        wrong.append(f'{params:.2f} M parameters, the paper has {entry.params}')
    if entry.macs and not _macs_agree(macs, entry.macs):
        wrong.append(f'{macs:.2f} G MACs, the paper has {entry.macs}')
    cells = [entry.name, f'{params:.2f}', entry.params or '-', f'{macs:.2f}', entry.macs or '-', *quoted]
    return Row(cells, '; '.join(wrong), entry.note)


def _macs_agree(macs: float, printed: str) -> bool:
    """Within what rounding hides, or within the tolerance."""
    unit = 10.**-len(printed.partition('.')[2])
    return abs(macs - float(printed)) <= max(unit / 2, MAC_TOLERANCE * float(printed))


def _count(entry: Entry, paper: PaperTable, config: str) -> Part:
    cfg = load_config(config)
    if paper.shape:
        return count_complexity(cfg, paper.shape)[-1]
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    backbone = MODELS.build(dict(cfg.model.backbone, out_norm_cfg=None))
    classifier = nn.Sequential(backbone, _head(paper.head, backbone.out_channels[-1]))
    shape = (1, 3, entry.side, entry.side)
    return count_modules(classifier, lambda x: classifier[1](backbone(x)[-1].mean((2, 3))), shape)['']


def _head(kind: str, channels: int) -> nn.Module:
    """The classifiers of the paper's models; the segmentation backbones have none."""
    if kind == 'linear':
        return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 1000))
    return nn.Sequential(
        nn.Linear(channels, 3 * channels), nn.GELU(), nn.LayerNorm(3 * channels), nn.Linear(3 * channels, 1000))


def _operators() -> Table:
    """Table 2: its formulas, and what the modules count to. A MAC is two FLOPs; biases are not in the formulas."""
    c, k, h, w = OPERATOR_CASE.values()
    cases = (
        ('convolution', nn.Conv2d(c, c, k, padding=k // 2), 'k^2 C^2', k**2 * c**2),
        ('depthwise convolution', PartialDWConv2d(c, k), 'k^2 C', k**2 * c),
        ('Inception depthwise convolution', InceptionDWConv2d(c, band_kernel_size=k), '(2k + 9) C / 8',
         (2 * k + 9) * c // 8))
    rows = []
    for name, module, formula, params in cases:
        found = sum(p.numel() for p in module.parameters() if p.ndim > 1)
        flops = 2 * count_modules(module, module, (1, c, h, w))[''].macs
        agrees = (found, flops) == (params, 2 * params * h * w)
        rows.append(Row([name, formula, f'{found:,}', f'{params:,}', f'2 H W {formula}', f'{flops:,}',
                         f'{2 * params * h * w:,}'], '' if agrees else 'counts differ from the formula'))
    columns = ['operator', 'params', 'counted', 'by formula', 'FLOPs', 'counted', 'by formula']
    return Table(f'Table 2: cost of operators, for C = {c}, k = {k}, H x W = {h} x {w}', columns, rows)


def unexplained(tables: List[Table]) -> Iterator[Tuple[Row, Table]]:
    """The rows that differ from the paper without a reason."""
    for table in tables:
        yield from ((row, table) for row in table.rows if row.difference and not row.reason)
