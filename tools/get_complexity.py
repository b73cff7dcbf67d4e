"""Counts parameters and MACs: python tools/get_complexity.py configs/upernet_inceptionnext_t_ade20k.py"""
import argparse
import json

from prettytable import PrettyTable

from mmseg_inceptionnext.analysis import count_complexity
from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.config import load_config


def parse_args():
    parser = argparse.ArgumentParser(description='Count the parameters and MACs of a segmentor, by part')
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'), help='size of the image')
    parser.add_argument('--depth', type=int, default=1, help='1: backbone, neck, heads; 2: their modules too; ...')
    parser.add_argument('--json', action='store_true', help='print JSON: params and macs of each part, in units')
    return parser.parse_args()


def main():
    args = parse_args()
    parts = count_complexity(load_config(args.config), tuple(args.shape), args.depth)
    if args.json:
        print(json.dumps(dict(shape=list(args.shape), parts=[part._asdict() for part in parts]), indent=2))
        return
    table = PrettyTable(['part', 'params (M)', 'MACs (G)'], align='r')
    table.align['part'] = 'l'
    for part in parts:
        indent = '  ' * part.name.count('.')
        table.add_row([indent + part.name.split('.')[-1], f'{part.params / 1e6:.2f}', f'{part.macs / 1e9:.1f}'])
    print(f'one image of {args.shape[0]} x {args.shape[1]} (H x W); MACs are multiply-accumulates of the network as it '
          'is written, without the fast head')
    print(table)


if __name__ == '__main__':
    run_tool(main)
