"""Times models side by side: python tools/benchmark.py CONFIG [CONFIG ...], or --compare-stock or --onnx CONFIG"""
import argparse
import json
import statistics
import sys

from prettytable import PrettyTable
from tqdm import tqdm

from mmseg_inceptionnext.apis import ConfigError, compare_stock, throughput
from mmseg_inceptionnext.apis.measure import machine, peaks
from mmseg_inceptionnext.apis.paper import published_accuracy
from mmseg_inceptionnext.export.compare_stock import compare_onnx_with_stock

GOES_WITH = dict(
    configs=('mode', 'runs', 'no_memory', 'json', 'backbone_only', 'shape', 'batch_size', 'memory_format', 'amp',
             'compile', 'fuse', 'plot'),
    compare_stock=('mode', 'runs', 'no_memory', 'json', 'scaling'),
    onnx=('shape', 'runs', 'json'))


def parse_args():
    parser = argparse.ArgumentParser(
        description='Time models, in turn, in one process: several configs side by side, or with --compare-stock one '
        "of ours, with the fast head, fused, and in little memory, against the same weights in MMSegmentation's own "
        "classes over timm's backbone")
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs to compare with the first of them')
    parser.add_argument('--compare-stock', metavar='CONFIG', help='config to compare with stock')
    parser.add_argument('--onnx', metavar='CONFIG', help='config to export and to compare with the export of stock, in '
                        'ONNX Runtime on two threads')
    parser.add_argument('--mode', nargs='+', choices=sorted({*throughput.MODES, *compare_stock.MODES}),
                        help='what to run: infer, train (default: infer); with --compare-stock predict, train, '
                        'backbone, slide (default: the first three)')
    parser.add_argument('--runs', type=int, default=7, help='timed runs of each, in turn (default: 7)')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory in fresh processes')
    parser.add_argument('--json', metavar='FILE', help='write every measurement to a file')
    several = parser.add_argument_group('for several configs')
    several.add_argument('--backbone-only', action='store_true', help='leave neck and heads out')
    several.add_argument('--shape', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'),
                         help='of the images, also for --onnx')
    several.add_argument('--batch-size', type=int, default=1, help='images of a call; halved where they do not fit')
    several.add_argument('--memory-format', choices=('best', *throughput.FORMATS), default='best',
                         help='order of the numbers in memory; best: the faster one, for each model')
    several.add_argument('--amp', action='store_true', help='autocast: float16 on a GPU, bfloat16 on a CPU')
    several.add_argument('--compile', action='store_true', help='with torch.compile')
    several.add_argument('--fuse', action='store_true', help='fold norms into convolutions before infer')
    several.add_argument('--plot', metavar='FILE', help="draw the paper's accuracy against the throughput of one mode")
    stock = parser.add_argument_group('for --compare-stock')
    stock.add_argument('--scaling', action='store_true', help='also time our prediction from 256 to 1536 a side')
    args = parser.parse_args()
    if sum(map(bool, (args.configs, args.compare_stock, args.onnx))) != 1:
        parser.error('give one or more configs, or --compare-stock CONFIG, or --onnx CONFIG')
    refuse_other_options(parser, args)
    allowed = compare_stock.MODES if args.compare_stock else throughput.MODES
    args.mode = args.mode or list(allowed[:3] if args.compare_stock else allowed[:1])
    if not set(args.mode) <= set(allowed):
        parser.error(f'--mode {" ".join(args.mode)}: allowed are {", ".join(allowed)} here')
    if args.plot and len(args.mode) > 1:
        parser.error('--plot draws one mode: give one')
    return args


def refuse_other_options(parser, args):
    """An option that would be ignored ends it."""
    kind = 'compare_stock' if args.compare_stock else 'onnx' if args.onnx else 'configs'
    # What stands in the namespace before keeps its value where an option was not given.
    given = vars(parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(vars(args)))))
    wrong = [name for name, value in given.items() if value not in (None, []) and name not in (kind, *GOES_WITH[kind])]
    if wrong:
        with_these, without = (', '.join(f'--{name.replace("_", "-")}' for name in names)
                               for names in (GOES_WITH[kind], wrong))
        kind = 'a list of configs' if kind == 'configs' else f'--{kind.replace("_", "-")}'
        parser.error(f'{kind} goes with {with_these} only, not with {without}')


def main():
    args = parse_args()
    print(machine())
    try:
        (compare_with_stock if args.compare_stock else compare_onnx if args.onnx else compare_configs)(args)
    except (ConfigError, ValueError, OSError) as error:
        sys.exit(str(error))


def compare_configs(args):
    table = _table('model', 'mode', 'batch', 'format', 'median s', 'min-max s', 'img/s', 'ratio', 'peak MiB')
    settings = throughput.Settings(
        shape=tuple(args.shape), batch_size=args.batch_size, memory_format=args.memory_format,
        backbone_only=args.backbone_only, amp=args.amp, compile=args.compile, fused=args.fuse)
    results = []
    for mode in tqdm(args.mode, desc='measuring', unit='mode', leave=False):
        found = throughput.measure_throughput(args.configs, settings._replace(mode=mode), args.runs, not args.no_memory)
        for result in found:
            table.add_row([
                throughput.model_name(result.config, args.backbone_only), mode, result.batch_size,
                result.memory_format, *_seconds(result),
                f'{result.images_per_second:.2f}', f'{result.images_per_second / found[0].images_per_second:.2f}x',
                '' if result.memory is None else f'{result.memory / 2**20:.0f}'])
        results += found
    what = ', '.join(['backbones' if args.backbone_only else 'segmentors', f'{args.shape[0]} x {args.shape[1]} (H x W)',
                      *(name for name in ('amp', 'compile', 'fuse') if getattr(args, name))])
    print(what, table, sep='\n')
    print('ratio: images a second, to the first; memory: above the weights')
    if args.json:
        throughput.to_json(results, settings, args.json)
    if args.plot:
        accuracy = {config: published_accuracy(config, args.backbone_only) for config in args.configs}
        left_out = [throughput.model_name(config) for config, value in accuracy.items() if value is None]
        if left_out:
            print('not in the plot, since the paper has no accuracy of them:', ', '.join(left_out))
        known = {config: value for config, value in accuracy.items() if value is not None}
        throughput.plot(results, known, args.backbone_only, args.plot)


def compare_with_stock(args):
    product, conv = peaks()
    print(f'peak: matrix product {product:.0f} GMAC/s, 1x1 convolution {conv:.0f} GMAC/s')
    table = _table('', 'model', 'median s', 'min-max s', 'speed', 'GMACs', 'GMAC/s', 'peak MiB', 'memory')
    rows, notes = [], []
    for mode in tqdm(args.mode, desc='measuring', unit='mode', leave=False):
        found, agreement = compare_stock.compare_with_stock(args.compare_stock, mode, args.runs, not args.no_memory)
        for row in found:
            table.add_row(_cells(row, found[0]))
        rows += found
        notes += [f'{mode}: {agreement}'] * bool(agreement)
    print(table)
    print('speed and memory: ratios to stock; memory: above the weights', *notes, sep='\n')
    if args.scaling:
        figures = compare_stock.scaling(args.compare_stock)
        print('seconds for a million pixels: ' + ', '.join(f'{side} x {side}: {value:.2f}' for side, value in figures))
    if args.json:
        compare_stock.to_json(rows, args.json)


def compare_onnx(args):
    times, error = compare_onnx_with_stock(args.onnx, tuple(args.shape), args.runs)
    table = PrettyTable(['model', 'median s', 'min-max s', 'speed'], align='r')
    median = statistics.median(times['stock'])
    for name, seconds in times.items():
        table.add_row([name, f'{statistics.median(seconds):.3f}', f'{min(seconds):.3f}-{max(seconds):.3f}',
                       f'{median / statistics.median(seconds):.2f}x'])
    print(f'{args.onnx} in ONNX Runtime, {args.shape[0]} x {args.shape[1]} (H x W), two threads', table, sep='\n')
    print(f'largest relative logit error {error:.1e}')
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(dict(times, error=error), file)


def _table(*columns):
    table = PrettyTable(columns, align='r')
    table.align[columns[0]] = table.align[columns[1]] = 'l'
    return table


def _seconds(result):
    return f'{statistics.median(result.times):.3f}', f'{min(result.times):.3f}-{max(result.times):.3f}'


def _cells(row, stock):
    median = statistics.median(row.times)
    memory = ['', ''] if row.memory is None else [f'{row.memory / 2**20:.0f}', f'{row.memory / stock.memory:.2f}x']
    return [compare_stock.CASES[row.mode].description if row is stock else '', row.name, *_seconds(row),
            f'{statistics.median(stock.times) / median:.2f}x', f'{row.macs / 1e9:.1f}',
            f'{row.macs / 1e9 / median:.0f}', *memory]


if __name__ == '__main__':
    main()
