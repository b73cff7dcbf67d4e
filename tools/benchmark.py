"""Times a model against the stock way: python tools/benchmark.py --compare-stock CONFIG"""
import argparse
import statistics
import sys

from prettytable import PrettyTable
from tqdm import tqdm

from mmseg_inceptionnext.apis import ConfigError
from mmseg_inceptionnext.apis import benchmark as bench


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare our model, with the fast head, fused, and in little memory, with the same weights in '
        "MMSegmentation's own classes over timm's backbone: agreement, time, memory")
    parser.add_argument('--compare-stock', metavar='CONFIG', required=True, help='config of the segmentor')
    parser.add_argument('--mode', nargs='+', choices=bench.MODES, default=['predict', 'train', 'backbone'],
                        help='what to run (default: predict train backbone)')
    parser.add_argument('--runs', type=int, default=7, help='timed runs of each, in turn (default: 7)')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory in fresh processes')
    parser.add_argument('--scaling', action='store_true', help='also time our prediction from 256 to 1536 a side')
    parser.add_argument('--json', metavar='FILE', help='write every measurement to a file')
    return parser.parse_args()


def main():
    args = parse_args()
    print(bench.machine())
    product, conv = bench.peaks()
    print(f'peak: matrix product {product:.0f} GMAC/s, 1x1 convolution {conv:.0f} GMAC/s')
    table = PrettyTable(['', 'model', 'median s', 'min-max s', 'speed', 'GMACs', 'GMAC/s', 'peak MiB', 'memory'],
                        align='r')
    table.align[''] = table.align['model'] = 'l'
    rows, notes = [], []
    try:
        for mode in tqdm(args.mode, desc='measuring', unit='mode', leave=False):
            found, agreement = bench.compare_with_stock(args.compare_stock, mode, args.runs, not args.no_memory)
            for row in found:
                table.add_row(cells(row, found[0]))
            rows += found
            notes += [f'{mode}: {agreement}'] * bool(agreement)
    except (ConfigError, ValueError) as error:
        sys.exit(str(error))
    print(table)
    print('speed and memory: ratios to stock; memory: above the weights', *notes, sep='\n')
    if args.scaling:
        figures = bench.scaling(args.compare_stock)
        print('seconds for a million pixels: ' + ', '.join(f'{side} x {side}: {value:.2f}' for side, value in figures))
    if args.json:
        bench.to_json(rows, args.json)


def cells(row, stock):
    median = statistics.median(row.times)
    memory = ['', ''] if row.memory is None else [f'{row.memory / 2**20:.0f}', f'{row.memory / stock.memory:.2f}x']
    return [bench.CASES[row.mode].description if row is stock else '', row.name, f'{median:.3f}',
            f'{min(row.times):.3f}-{max(row.times):.3f}', f'{statistics.median(stock.times) / median:.2f}x',
            f'{row.macs / 1e9:.1f}', f'{row.macs / 1e9 / median:.0f}', *memory]


if __name__ == '__main__':
    main()
