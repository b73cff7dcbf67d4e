"""Times models side by side: several configs, ours and stock (--compare-stock), timm's classifiers (--classifiers)"""
import argparse
import itertools
import json
import sys

import torch
from tqdm import tqdm

from mmseg_inceptionnext.analysis import benchmark_tables, classifiers, compare_stock, throughput
from mmseg_inceptionnext.analysis.compare_stock_onnx import compare_onnx_with_stock
from mmseg_inceptionnext.analysis.machine import machine, peaks, set_tf32
from mmseg_inceptionnext.analysis.measure import PRECISIONS, half_precision
from mmseg_inceptionnext.analysis.paper import published_accuracy
from mmseg_inceptionnext.cli import run_tool

GOES_WITH = dict(
    configs=('mode', 'runs', 'no_memory', 'json', 'markdown', 'amp', 'batch_size', 'compile', 'tf32', 'backbone_only',
             'shape', 'memory_format', 'fuse', 'plot'),
    compare_stock=('mode', 'runs', 'no_memory', 'json', 'markdown', 'amp', 'batch_size', 'compile', 'tf32',
                   'channels_last', 'scaling'),
    classifiers=('mode', 'runs', 'json', 'markdown', 'amp', 'batch_size', 'compile', 'tf32', 'memory_format', 'plot'),
    onnx=('shape', 'runs', 'json', 'markdown'))
MODES = dict(configs=throughput.MODES, compare_stock=compare_stock.MODES, classifiers=throughput.MODES)
FORMATS = dict(configs=('best', *throughput.FORMATS), classifiers=('both', 'best', *throughput.FORMATS))


def parse_args():
    parser = argparse.ArgumentParser(
        description='Time models, in turn, in one process: several configs side by side; with --compare-stock one of '
        "ours, with the fast head, fused, and in little memory, against the same weights in MMSegmentation's own "
        "classes over timm's backbone; with --classifiers timm's classifiers, beside what the paper measured")
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs to compare with the first of them')
    parser.add_argument('--compare-stock', metavar='CONFIG', help='config to compare with stock')
    parser.add_argument('--classifiers', nargs='*', metavar='NAME', help="timm's ImageNet classifiers at 224 x 224, or "
                        f'all for the ten of the paper (default: {" ".join(classifiers.DEFAULT)})')
    parser.add_argument('--onnx', metavar='CONFIG', help='config to export and to compare with the export of stock, in '
                        'ONNX Runtime on two threads')
    parser.add_argument('--mode', nargs='+', choices=sorted({*throughput.MODES, *compare_stock.MODES}),
                        help='what to run: infer, train (default: infer; with --classifiers both); with '
                        '--compare-stock predict, train, backbone, slide (default: the first three)')
    parser.add_argument('--runs', type=positive, default=7, help='timed runs of each, in turn (default: 7)')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory')
    parser.add_argument('--json', metavar='FILE', help='write every measurement to a file')
    parser.add_argument('--markdown', action='store_true', help="print the tables in GitHub's form")
    add_pytorch_options(parser)
    add_special_options(parser)
    args = parser.parse_args()
    kinds = [kind for kind in GOES_WITH if getattr(args, kind) is not None and (args.configs or kind != 'configs')]
    if len(kinds) != 1:
        parser.error('give one or more configs, or --compare-stock CONFIG, or --classifiers [NAME ...], or '
                     '--onnx CONFIG')
    refuse_other_options(parser, args, kinds[0])
    set_defaults(parser, args, kinds[0])
    return args


def add_pytorch_options(parser):
    group = parser.add_argument_group('for all but --onnx')
    group.add_argument('--amp', nargs='*', choices=tuple(PRECISIONS), help='precision; fp16 and bf16 by autocast '
                       '(default: fp32; without a value fp16 on a GPU, bf16 on a CPU). Each of several has its part of '
                       'the table; a list of configs takes one')
    group.add_argument('--batch-size', nargs='+', type=positive, metavar='N', help='images of a call (default: 1; with '
                       '--compare-stock 2 for train, with --classifiers 128). With --compare-stock each of several has '
                       'its part of the table; for a list of configs it is halved where they do not fit')
    group.add_argument('--compile', action='store_true', help='with torch.compile; with --compare-stock and '
                       '--classifiers in rows of their own')
    group.add_argument('--tf32', action=argparse.BooleanOptionalAction, help='on a GPU, let float32 convolutions and '
                       "matrix products both round to TF32, or neither (default: PyTorch's own, convolutions only)")


def add_special_options(parser):
    several = parser.add_argument_group('for several configs')
    several.add_argument('--backbone-only', action='store_true', help='leave neck and heads out')
    several.add_argument('--shape', type=positive, nargs=2, default=(512, 512), metavar=('H', 'W'),
                         help='of the images, also for --onnx')
    several.add_argument('--memory-format', choices=FORMATS['classifiers'], help='order of the numbers in memory, also '
                         'for --classifiers; best: the faster one, for each model (default: best; for classifiers '
                         'both)')
    several.add_argument('--fuse', action='store_true', help='fold norms into convolutions before infer')
    several.add_argument('--plot', metavar='FILE', help="draw the paper's accuracy against the throughput of one mode, "
                         'also for --classifiers')
    stock = parser.add_argument_group('for --compare-stock')
    stock.add_argument('--channels-last', action='store_true', help='run stock in the channels-last memory format')
    stock.add_argument('--scaling', action='store_true', help='also time our prediction from 256 to 1536 a side')


def positive(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'{text}: allowed are whole numbers from 1')
    return int(text)


def refuse_other_options(parser, args, kind):
    """An option that would be ignored ends it."""
    # What stands in the namespace before keeps its value where an option was not given.
    given = vars(parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(vars(args)))))
    wrong = [name for name, value in given.items()
             if value is not None and (value or name != 'configs') and name not in (kind, *GOES_WITH[kind])]
    if wrong:
        with_these, without = (', '.join(f'--{name.replace("_", "-")}' for name in names)
                               for names in (GOES_WITH[kind], wrong))
        parser.error(f'{said(kind)} goes with {with_these} only, not with {without}')


def said(kind):
    return 'a list of configs' if kind == 'configs' else f'--{kind.replace("_", "-")}'


def set_defaults(parser, args, kind):
    """Fills in what differs between the kinds, and refuses values that a kind has not."""
    args.kind = kind
    if kind == 'onnx':
        return
    default = dict(configs=['infer'], compare_stock=['predict', 'train', 'backbone'], classifiers=['infer', 'train'])
    args.mode = args.mode or default[kind]
    if not set(args.mode) <= set(MODES[kind]):
        parser.error(f'--mode {" ".join(args.mode)}: allowed are {", ".join(MODES[kind])} here')
    args.amp = ['fp32'] if args.amp is None else args.amp or [half_precision()]
    args.batch_size = args.batch_size or dict(configs=[1], compare_stock=[None], classifiers=[128])[kind]
    for name, several in (('amp', kind != 'configs'), ('batch_size', kind == 'compare_stock')):
        values = getattr(args, name)
        if len(values) > 1 and not several:
            parser.error(f'--{name.replace("_", "-")} {" ".join(map(str, values))}: {said(kind)} takes one value')
    if kind in FORMATS:
        args.memory_format = args.memory_format or FORMATS[kind][0]
        if args.memory_format not in FORMATS[kind]:
            parser.error(f'--memory-format {args.memory_format}: allowed are {", ".join(FORMATS[kind])} here')
    if args.plot and len(args.mode) * len(args.amp) > 1:
        parser.error(f'--plot draws one mode in one precision, not --mode {" ".join(args.mode)} with --amp '
                     f'{" ".join(args.amp)}')


def main():
    args = parse_args()
    compare = dict(configs=compare_configs, compare_stock=compare_with_stock, classifiers=compare_classifiers,
                   onnx=compare_onnx)[args.kind]
    set_tf32(args.tf32)
    print(machine(args.amp or ['fp32']))
    try:
        compare(args)
    except torch.cuda.OutOfMemoryError as error:
        sys.exit(f'this does not fit into the memory of the GPU: give a smaller --batch-size. {error}')


def compare_configs(args):
    settings = throughput.Settings(
        shape=tuple(args.shape), batch_size=args.batch_size[0], memory_format=args.memory_format,
        backbone_only=args.backbone_only, amp=args.amp[0], compile=args.compile, fused=args.fuse)
    results = []
    for mode in tqdm(args.mode, desc='measuring', unit='mode', leave=False):
        results += throughput.measure_throughput(
            args.configs, settings._replace(mode=mode), args.runs, not args.no_memory)
    print(', '.join(['backbones' if args.backbone_only else 'segmentors', f'{args.shape[0]} x {args.shape[1]} (H x W)',
                     *args.amp, *(name for name in ('compile', 'fuse') if getattr(args, name))]))
    print(benchmark_tables.throughput_table(results, settings, args.markdown))
    print('ratio: images a second, to the first; memory: above the weights')
    if args.json:
        throughput.to_json(results, settings, args.json)
    if args.plot:
        accuracy = {config: published_accuracy(config, args.backbone_only) for config in args.configs}
        left_out = [throughput.model_name(config) for config, value in accuracy.items() if value is None]
        if left_out:
            print('not in the plot, since the paper has no accuracy of them:', ', '.join(left_out))
        known = {config: value for config, value in accuracy.items() if value is not None}
        throughput.plot(results, known, settings, args.plot)


def compare_with_stock(args):
    rows, notes = [], []
    blocks = list(itertools.product(args.mode, args.amp, args.batch_size))
    for mode, amp, batch_size in tqdm(blocks, desc='measuring', unit='block', leave=False):
        options = compare_stock.Options(amp, batch_size, args.channels_last, args.compile)
        found, agreement = compare_stock.compare_with_stock(
            args.compare_stock, mode, options, args.runs, not args.no_memory)
        rows += found
        notes += [f'{mode}, {amp}, batch {found[0].options.batch_size}: {agreement}'] * bool(agreement)
    for amp in args.amp:
        product, conv = peaks(amp)
        print(f'peak in {amp}: matrix product {product:.0f} GMAC/s, 1x1 convolution {conv:.0f} GMAC/s')
    print(benchmark_tables.stock_table(rows, args.markdown))
    print('speed and memory: ratios to stock; memory: above the weights', *notes, sep='\n')
    if args.scaling:
        for amp in args.amp:
            figures = compare_stock.scaling(args.compare_stock, compare_stock.Options(amp))
            print(f'seconds for a million pixels in {amp}: '
                  + ', '.join(f'{side} x {side}: {value:.3g}' for side, value in figures))
    if args.json:
        compare_stock.to_json(rows, args.json)


def compare_classifiers(args):
    names = classifiers.classifier_names(args.classifiers)
    results = []
    blocks = list(itertools.product(args.mode, args.amp))
    for mode, amp in tqdm(blocks, desc='measuring', unit='block', leave=False):
        settings = classifiers.Settings(mode, args.batch_size[0], args.memory_format, amp, args.compile)
        results += classifiers.measure_classifiers(names, settings, args.runs)
    print(f'ImageNet classifiers, batch {args.batch_size[0]}, 224 x 224')
    print(benchmark_tables.classifier_table(results, args.markdown))
    base = classifiers.baseline_of(results[0], results).name
    print(f'ratio: images a second, to {base} run in the same way; A100 and top-1: the paper, table 4')
    if args.json:
        classifiers.to_json(results, args.json)
    if args.plot:
        classifiers.plot(results, args.plot)


def compare_onnx(args):
    times, error = compare_onnx_with_stock(args.onnx, tuple(args.shape), args.runs)
    print(f'{args.onnx} in ONNX Runtime, {args.shape[0]} x {args.shape[1]} (H x W), two threads')
    print(benchmark_tables.onnx_table(times, args.markdown))
    print(f'largest relative logit error {error:.1e}')
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(dict(times, error=error), file)


if __name__ == '__main__':
    run_tool(main)
