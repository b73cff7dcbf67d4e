"""The tables of tools/benchmark.py, as text; times in milliseconds where a GPU took them."""
import statistics
from typing import Dict, List, Optional, Sequence

import prettytable

from .classifiers import Result, baseline_of
from .compare_stock import CASES, Row
from .measure import Kernels, on_gpu
from .paper import TABLE_4
from .throughput import Settings, Throughput, model_name


def stock_table(rows: Sequence[Row], markdown: bool = False) -> str:
    """Blocks of rows by mode, precision and batch; a block begins with stock, which the rest of it is compared with."""
    table, stock = [], None
    for row in rows:
        stock = row if row.name == 'stock' else stock
        median = statistics.median(row.times)
        memory = ['', ''] if row.memory is None else [_mebibytes(row.memory), f'{row.memory / stock.memory:.2f}x']
        table.append([_what(row) if row is stock else '', row.name, *_times(row.times),
                      f'{statistics.median(stock.times) / median:.2f}x', f'{row.macs / 1e9:.1f}',
                      f'{row.macs / 1e9 / median:.0f}', *_kernels(row.kernels), *memory])
    return _text(['', 'model', *_time_columns(), 'speed', 'GMACs', 'GMAC/s', *_kernel_columns(), 'peak MiB', 'memory'],
                 table, markdown)


def _what(row: Row) -> str:
    options = row.options
    return ', '.join([CASES[row.mode].description, f'batch {options.batch_size}', options.amp,
                      *['stock channels-last'] * options.channels_last])


def throughput_table(results: Sequence[Throughput], settings: Settings, markdown: bool = False) -> str:
    """Configs side by side; of each mode the first is what the others are compared with."""
    first: Dict[str, Throughput] = {}
    table = []
    for result in results:
        speed = result.images_per_second
        ratio = speed / first.setdefault(result.mode, result).images_per_second
        table.append([model_name(result.config, settings.backbone_only), result.mode, result.batch_size,
                      result.memory_format, *_times(result.times), *_kernels(result.kernels), f'{speed:.2f}',
                      f'{ratio:.2f}x', _mebibytes(result.memory)])
    return _text(['model', 'mode', 'batch', 'format', *_time_columns(), *_kernel_columns(), 'img/s', 'ratio',
                  'peak MiB'], table, markdown)


def classifier_table(results: Sequence[Result], markdown: bool = False) -> str:
    """Classifiers side by side, and the paper's figures of those that it has."""
    table = []
    for result in results:
        settings, speed, base = result.settings, result.images_per_second, baseline_of(result, results)
        published = ['', '', '']
        if result.published:
            ratio = f'{result.published / base.published:.2f}x' if base.published else ''
            published = [result.published, ratio, TABLE_4[result.name].top1]
        table.append([result.name + ', compiled' * result.compiled, settings.mode, settings.amp, result.memory_format,
                      *_times(result.times), *_kernels(result.kernels), f'{speed:.1f}',
                      f'{speed / base.images_per_second:.2f}x', *published])
    return _text(['classifier', 'mode', 'precision', 'format', *_time_columns(), *_kernel_columns(), 'img/s', 'ratio',
                  'A100 img/s', 'A100 ratio', 'top-1'], table, markdown)


def onnx_table(times: Dict[str, List[float]], markdown: bool = False) -> str:
    """Stock and ours in ONNX Runtime, in seconds: it runs on a CPU."""
    stock = statistics.median(times['stock'])
    return _text(['model', 'median s', 'min-max s', 'speed'], [
        [name, *_times(seconds, gpu=False), f'{stock / statistics.median(seconds):.2f}x']
        for name, seconds in times.items()], markdown)


def _text(columns: List[str], rows: List[list], markdown: bool) -> str:
    """A table with its words on the left and its numbers on the right; with markdown in GitHub's form."""
    table = prettytable.PrettyTable(columns, align='r')
    if markdown:
        # An enumeration holds it since PrettyTable 3.12, the package itself before.
        table.set_style(getattr(prettytable, 'TableStyle', prettytable).MARKDOWN)
    for name, column in zip(columns, zip(*rows)):
        if name not in ('min-max s', 'min-max ms') and any(str(cell)[:1].isalpha() for cell in column):
            table.align[name] = 'l'
    table.add_rows(rows)
    return f'\n{table}\n' if markdown else str(table)


def _time_columns() -> List[str]:
    return ['median ms', 'min-max ms'] if on_gpu() else ['median s', 'min-max s']


def _times(seconds: Sequence[float], gpu: Optional[bool] = None) -> List[str]:
    factor, digits = (1000, 2) if (on_gpu() if gpu is None else gpu) else (1, 3)
    median, low, high = (f'{factor * f(seconds):.{digits}f}' for f in (statistics.median, min, max))
    return [median, f'{low}-{high}']


def _kernel_columns() -> List[str]:
    return ['kernels', 'busy ms'] if on_gpu() else []


def _kernels(kernels: Optional[Kernels]) -> list:
    if not on_gpu():
        return []
    return ['', ''] if kernels is None else [kernels.count, f'{1000 * kernels.seconds:.2f}']


def _mebibytes(size: Optional[int]) -> str:
    return '' if size is None else f'{size / 2**20:.0f}'
