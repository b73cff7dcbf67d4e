"""Draws samples as the network sees them: python tools/visualize_dataset.py CONFIG --out-dir samples"""
import argparse

from mmseg_inceptionnext.analysis import draw_samples
from mmseg_inceptionnext.cli import add_config_options, run_tool
from mmseg_inceptionnext.config import load_config


def parse_args():
    parser = argparse.ArgumentParser(
        description='Draw samples as they enter the network: augmented, normalised and padded by the config, then '
        'un-normalised, with the labels painted over them; ignored pixels are striped')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--num', type=int, default=16, help='how many samples (default: 16)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='which dataloader of the config (default: train)')
    add_config_options(parser, 'randomness.seed=0 for the samples that a run with this seed starts with')
    args = parser.parse_args()
    if args.num < 1:
        parser.error(f'--num {args.num}: give 1 or more')
    return args


def main():
    args = parse_args()
    print(*draw_samples(load_config(args.config, args.cfg_options), args.split, args.num, args.out_dir), sep='\n')


if __name__ == '__main__':
    run_tool(main)
