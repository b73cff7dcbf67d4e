"""Tables and JSON of what :mod:`.benchmark` measured."""
import json
from typing import Dict, Sequence

import prettytable

from .benchmark import Row, baseline_of
from .measure import machine
from .paper import TABLE_4
from .variants import Settings


def comparison_table(rows: Sequence[Row], markdown: bool = False) -> str:
    """The rows of one or several comparisons, one after the other; what none of them has is no column."""
    in_ms = max(row.median for row in rows) < 1
    lines = [_line(row, rows, i == 0 or row.settings != rows[i - 1].settings, in_ms) for i, row in enumerate(rows)]
    columns = [name for name in lines[0] if any(line[name] for line in lines)]
    table = prettytable.PrettyTable(columns, align='r')
    for name in ('', 'model', 'format'):
        table.align[name] = 'l'
    if markdown:
        # An enumeration holds it since PrettyTable 3.12, the package itself before.
        table.set_style(getattr(prettytable, 'TableStyle', prettytable).MARKDOWN)
    table.add_rows([[line[name] for name in columns] for line in lines])
    return f'\n{table}\n' if markdown else str(table)


def _line(row: Row, rows: Sequence[Row], is_first: bool, in_ms: bool) -> Dict[str, str]:
    """The cells of a row by column, empty for what it has not."""
    base = baseline_of(row, rows)
    unit, factor, digits = ('ms', 1000, 2) if in_ms else ('s', 1, 3)
    cells = {
        '': describe(row.settings) if is_first else '',
        'model': row.variant.name,
        'format': row.variant.memory_format,
        f'median {unit}': f'{factor * row.median:.{digits}f}',
        f'min-max {unit}': f'{factor * min(row.times):.{digits}f}-{factor * max(row.times):.{digits}f}',
        'img/s': f'{row.settings.batch_size / row.median:.2f}',
        'speed': f'{base.median / row.median:.2f}x',
        **dict.fromkeys(('GMACs', 'GMAC/s', 'kernels', 'busy ms', 'peak MiB', 'memory', 'A100 img/s', 'A100 speed',
                         'top-1'), ''),
    }
    if row.macs is not None:
        cells.update({'GMACs': f'{row.macs / 1e9:.1f}', 'GMAC/s': f'{row.macs / 1e9 / row.median:.0f}'})
    if row.kernels is not None:
        cells.update({'kernels': str(row.kernels.count), 'busy ms': f'{1000 * row.kernels.seconds:.2f}'})
    if row.memory is not None:
        cells.update({'peak MiB': f'{row.memory / 2**20:.0f}', 'memory': f'{row.memory / base.memory:.2f}x'})
    if row.variant.source == 'timm' and row.variant.path in TABLE_4 and not row.settings.backbone_only:
        published, images = TABLE_4[row.variant.path], getattr(TABLE_4[row.variant.path], row.settings.mode)
        cells.update({'A100 img/s': str(images), 'top-1': str(published.top1)})
        if base.variant.path in TABLE_4:
            cells['A100 speed'] = f'{images / getattr(TABLE_4[base.variant.path], row.settings.mode):.2f}x'
    return cells


def describe(settings: Settings) -> str:
    """Settings in words, heights first."""
    shape, size = (f'{height} x {width}' for height, width in (settings.shape, settings.size or settings.shape))
    backbone = settings.backbone_only and settings.mode != 'backbone'
    return ', '.join([settings.mode + ' of the backbone' * backbone,
                      shape if shape == size else f'{shape} in, {size} out',
                      *['window 512, stride 341'] * (settings.mode == 'slide'),
                      f'batch {settings.batch_size}', settings.amp])


def to_json(rows: Sequence[Row], path: str) -> None:
    """Writes every single measurement."""
    content = [dict(row._asdict(), variant=row.variant._asdict(), settings=row.settings._asdict(),
                    kernels=row.kernels and row.kernels._asdict()) for row in rows]
    amps = dict.fromkeys(row.settings.amp for row in rows)
    with open(path, 'w') as file:
        json.dump(dict(machine=machine(list(amps)), rows=content), file, indent=2)
