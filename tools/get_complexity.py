"""Counts parameters and MACs: python tools/get_complexity.py configs/upernet_inceptionnext_t_ade20k.py"""
import argparse

from prettytable import PrettyTable

from mmseg_inceptionnext.apis import count_complexity, load_config


def parse_args():
    parser = argparse.ArgumentParser(description='Count the parameters and MACs of a segmentor, by part')
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'), help='size of the image')
    return parser.parse_args()


def main():
    args = parse_args()
    table = PrettyTable(['part', 'params (M)', 'MACs (G)'], align='r')
    table.align['part'] = 'l'
    for part in count_complexity(load_config(args.config), tuple(args.shape)):
        table.add_row([part.name, f'{part.params / 1e6:.2f}', f'{part.macs / 1e9:.1f}'])
    print(f'one image of {args.shape[0]} x {args.shape[1]} (H x W); MACs are multiply-accumulates of the network as it '
          'is written, without the fast head')
    print(table)


if __name__ == '__main__':
    main()
