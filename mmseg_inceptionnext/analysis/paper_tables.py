"""Rebuilds the paper's tables: parameters and MACs counted now, beside what is printed there."""
import os.path as osp
import re
from typing import Any, List, NamedTuple, Sequence, Tuple

import timm
import torch
from mmengine.config import Config
from torch import nn

from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.models import InceptionDWConv2d, PartialDWConv2d
from mmseg_inceptionnext.parts import type_name

from .complexity import Part, count_complexity, count_modules
from .paper import RECIPE, TABLE_9, TABLES, TIMM, Entry, PaperTable

NUMBERS = (1, 2, *sorted(TABLES)[1:], 9)
IMAGES = 1281167  # of ImageNet-1K
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
    if number == 9:
        return _recipes(configs)
    paper = TABLES[number]
    title = f'Table {number}: {paper.title}' + '; MACs at 224 x 224' * (paper.shape is None)
    columns = ['model', 'params (M)', 'paper', 'MACs (G)', 'paper', *(f"paper's {name}" for name in paper.quoted)]
    return Table(title, columns, [_row(entry, paper, configs) for entry in paper.entries])


def _row(entry: Entry, paper: PaperTable, configs: str) -> Row:
    quoted = [value or '-' for value in entry.quoted]
    if entry.config is None:
        return Row([entry.name, '-', entry.params, '-', entry.macs, *quoted], 'cannot be built here', entry.note)
    part = _count(entry, paper, configs)
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


def _count(entry: Entry, paper: PaperTable, configs: str) -> Part:
    if entry.config.startswith(TIMM):
        model = timm.create_model(entry.config[len(TIMM):])
    else:
        cfg = load_config(osp.join(configs, f'{entry.config}.py'))
        if paper.shape:
            return count_complexity(cfg, paper.shape)[-1]
        with torch.device('meta'):
            model = build_model(cfg, entry.config)
    return count_modules(model, model, (1, 3, entry.side, entry.side))['']


def _recipes(configs: str) -> Table:
    """Table 9: a row for each setting, with what each config has, and what the paper has where they differ."""
    found = {name: _recipe_of(load_config(osp.join(configs, 'pretrain', f'{name}.py'))) for name in TABLE_9}
    rows = []
    for i, setting in enumerate(RECIPE):
        wrong = [f'{name} has {ours[i]}, the paper {TABLE_9[name][i]}' for name, ours in found.items()
                 if ours[i] != TABLE_9[name][i]]
        cells = [f'{ours[i]:g}' if isinstance(ours[i], (int, float)) else ours[i] for ours in found.values()]
        rows.append(Row([setting, *cells], '; '.join(wrong)))
    names = [name.replace('inceptionnext_', '').replace('_in1k', '') for name in TABLE_9]
    return Table('Table 9: recipes on ImageNet-1K, read from configs/pretrain', ['setting', *names], rows)


def _recipe_of(cfg: Config) -> Tuple[Any, ...]:
    """What stands in :data:`RECIPE`, of a config."""
    batch, model = cfg.auto_scale_lr.base_batch_size, cfg.model
    epoch = IMAGES / batch
    mixup, transform = model.data_preprocessor.mixup, cfg.train_dataloader.dataset.transform
    mixes = mixup.get('prob', 1.)
    warm_up = [scheduler.end for scheduler in cfg.param_scheduler if type_name(scheduler) == 'LinearLR']
    policy = '/'.join(re.search(rf'-{key}([0-9.]+)', transform.auto_augment)[1] for key in ('m', 'mstd'))
    averages = [1 - hook.momentum for hook in cfg.custom_hooks if type_name(hook) == 'EMAHook']
    return (cfg.optim_wrapper.optimizer.lr, batch, round(cfg.train_cfg.max_iters / epoch),
            round(sum(warm_up) / epoch), cfg.optim_wrapper.optimizer.weight_decay, model.backbone.drop_path_rate,
            policy, mixup.mixup_alpha * mixes, mixup.cutmix_alpha * mixes, transform.re_prob, mixup.label_smoothing,
            model.get('dropout_ratio', 0.), f'{averages[0]:g}' if averages else 'no')


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
