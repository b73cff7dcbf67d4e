"""Times models side by side: several configs, ours and stock (--compare-stock), timm's classifiers (--classifiers)"""
import argparse
import itertools

from mmengine.device import get_device
from tqdm import tqdm

from mmseg_inceptionnext.analysis.benchmark import compare, compare_onnx
from mmseg_inceptionnext.analysis.benchmark_tables import comparison_table, describe, to_json
from mmseg_inceptionnext.analysis.measure import PRECISIONS, isolated, machine, peaks, set_tf32
from mmseg_inceptionnext.analysis.variants import (
    CLASSIFIERS,
    FORMATS,
    STOCK_SETTINGS,
    Settings,
    classifier_variants,
    config_variants,
    stock_variants,
)
from mmseg_inceptionnext.cli import run_tool

# What each kind of comparison takes, and its defaults.
COMMON = dict(runs=7, json=None, markdown=False)
PYTORCH = dict(COMMON, amp=['fp32'], compile=False, tf32=None)
OPTIONS = dict(
    configs=dict(PYTORCH, mode=['infer'], batch_size=[1], no_memory=False, shape=[512, 512], memory_format='best',
                 backbone_only=False, fuse=False),
    compare_stock=dict(PYTORCH, mode=['predict', 'train', 'backbone'], batch_size=[None], no_memory=False,
                       channels_last=False),
    classifiers=dict(PYTORCH, mode=['infer', 'train'], batch_size=[128], memory_format='both'),
    onnx=dict(COMMON, shape=[512, 512]))
MODES = dict(configs=['infer', 'train'], compare_stock=list(STOCK_SETTINGS), classifiers=['infer', 'train'])


def parse_args():
    parser = argparse.ArgumentParser(
        argument_default=argparse.SUPPRESS,
        description='Time models, in turn, in one process: several configs side by side; with --compare-stock one of '
        "ours, with the fast head, fused, and in little memory, against the same weights in MMSegmentation's own "
        "classes over timm's backbone; with --classifiers timm's classifiers, beside what the paper measured")
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs to compare with the first of them')
    parser.add_argument('--compare-stock', metavar='CONFIG', help='config to compare with stock')
    parser.add_argument('--classifiers', nargs='*', metavar='NAME', help="timm's ImageNet classifiers at 224 x 224, or "
                        f'all for the ten of the paper (default: {" ".join(CLASSIFIERS)})')
    parser.add_argument('--onnx', metavar='CONFIG', help='config to export and to compare with the export of stock, in '
                        'ONNX Runtime on two threads')
    parser.add_argument('--mode', nargs='+', choices=sorted({*MODES['configs'], *STOCK_SETTINGS}),
                        help='what to run: infer, train (default: infer; with --classifiers both); with '
                        '--compare-stock predict, train, backbone, slide (default: the first three)')
    parser.add_argument('--runs', type=positive, help='timed runs of each, in turn (default: 7)')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory, also of --compare-stock')
    parser.add_argument('--json', metavar='FILE', help='write every measurement to a file')
    parser.add_argument('--markdown', action='store_true', help="print the tables in GitHub's form")
    group = parser.add_argument_group('for all but --onnx')
    group.add_argument('--amp', nargs='*', choices=tuple(PRECISIONS), help='precision; fp16 and bf16 by autocast '
                       '(default: fp32; without a value fp16 on a GPU, bf16 on a CPU). Each of several has its part of '
                       'the table')
    group.add_argument('--batch-size', nargs='+', type=positive, metavar='N', help='images of a call (default: 1, '
                       '2 for train with --compare-stock, 128 for --classifiers). Each of several has its part of the '
                       'table')
    group.add_argument('--compile', action='store_true', help='with torch.compile; with --compare-stock and '
                       '--classifiers in rows of their own')
    group.add_argument('--tf32', action=argparse.BooleanOptionalAction, help='on a GPU, let float32 convolutions and '
                       "matrix products both round to TF32, or neither (default: PyTorch's own, convolutions only)")
    group = parser.add_argument_group('for some')
    group.add_argument('--shape', type=positive, nargs=2, metavar=('H', 'W'),
                       help='of the images, for configs and --onnx (default: 512 512)')
    group.add_argument('--memory-format', choices=('best', 'both', *FORMATS), help='order of the numbers in memory, '
                       'for configs and --classifiers; best: the faster one, for each model (default: best; for '
                       'classifiers both)')
    group.add_argument('--backbone-only', action='store_true', help='leave neck and heads of configs out')
    group.add_argument('--fuse', action='store_true', help='fold norms of configs into convolutions before infer')
    group.add_argument('--channels-last', action='store_true', help='run stock in the channels-last memory format')
    return with_defaults(parser, vars(parser.parse_args()))


def positive(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'{text}: allowed are whole numbers from 1')
    return int(text)


def with_defaults(parser, given):
    """Refuses options and modes that a kind has not, and fills in what was not given."""
    if not given.get('configs'):
        given.pop('configs', None)
    kinds = [kind for kind in OPTIONS if kind in given]
    if len(kinds) != 1:
        parser.error('give one or more configs, or --compare-stock CONFIG, or --classifiers [NAME ...], or '
                     '--onnx CONFIG')
    kind, options = kinds[0], OPTIONS[kinds[0]]
    wrong = sorted(set(given) - {kind, *options})
    if wrong:
        named, allowed = (', '.join(f'--{name.replace("_", "-")}' for name in names) for names in (wrong, options))
        parser.error(f'{said(kind)} goes with {allowed} only, not with {named}')
    if not set(given.get('mode', ())) <= set(MODES.get(kind, ())):
        parser.error(f'--mode {" ".join(given["mode"])}: allowed are {", ".join(MODES[kind])} with {said(kind)}')
    if given.get('amp') == []:
        given['amp'] = ['fp16' if get_device() == 'cuda' else 'bf16']
    return argparse.Namespace(kind=kind, **{**options, **given})


def said(kind):
    return 'a list of configs' if kind == 'configs' else f'--{kind.replace("_", "-")}'


def comparisons(args):
    """The settings and models of each part of the table."""
    for mode, amp, batch_size in itertools.product(args.mode, args.amp, args.batch_size):
        if args.kind == 'compare_stock':
            settings = STOCK_SETTINGS[mode]
            settings = settings._replace(amp=amp, batch_size=batch_size or settings.batch_size)
            yield settings, stock_variants(args.compare_stock, mode, args.channels_last, args.compile)
        elif args.kind == 'configs':
            settings = Settings(mode, batch_size, tuple(args.shape), amp=amp, backbone_only=args.backbone_only)
            yield settings, config_variants(args.configs, args.memory_format, args.fuse, args.compile)
        else:
            settings = Settings(mode, batch_size, (224, 224), amp=amp)
            yield settings, classifier_variants(args.classifiers, args.memory_format, args.compile)


def main():
    args = parse_args()
    if args.kind == 'onnx':
        rows, agreement = compare_onnx(args.onnx, tuple(args.shape), args.runs)
        notes = [agreement]
        print(machine(['fp32']))
    else:
        set_tf32(args.tf32)
        print(machine(args.amp))
        rows, notes = [], ['speed: ratio to the first that runs in the same way; A100 and top-1: the paper, table 4'
                           if args.kind == 'classifiers' else
                           'speed and memory: ratios to the first; memory: above the weights']
        for settings, variants in tqdm(list(comparisons(args)), desc='measuring', unit='part', leave=False):
            found, agreement = compare(variants, settings, args.runs, not getattr(args, 'no_memory', True),
                                       getattr(args, 'memory_format', '') == 'best')
            rows += found
            notes += [f'{describe(settings)}: {agreement}'] * bool(agreement)
    if args.kind == 'compare_stock':
        for amp in args.amp:
            product, conv = isolated(peaks, amp)
            print(f'peak in {amp}: matrix product {product:.0f} GMAC/s, 1x1 convolution {conv:.0f} GMAC/s')
    print(comparison_table(rows, args.markdown), *notes, sep='\n')
    if args.json:
        to_json(rows, args.json)


if __name__ == '__main__':
    run_tool(main)
