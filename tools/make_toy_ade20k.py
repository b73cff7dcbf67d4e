"""Draws the demo's dataset: python tools/make_toy_ade20k.py --out data/toy_ade20k"""
import argparse

from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.datasets import make_toy_ade20k, make_toy_crops


def parse_args():
    parser = argparse.ArgumentParser(
        description='Draw street scenes with labels in the layout of ADEChallengeData2016',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/toy_ade20k', help='folder to write to')
    parser.add_argument('--num-train', type=int, default=200, help='number of training scenes')
    parser.add_argument('--num-val', type=int, default=40, help='number of validation scenes')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes')
    parser.add_argument('--crops', metavar='DIR', help='also cut windows out of the scenes, a folder for each class, '
                        'to train a classifier on')
    return parser.parse_args()


def main():
    args = parse_args()
    make_toy_ade20k(args.out, args.num_train, args.num_val, args.seed)
    print(f'{args.num_train} training and {args.num_val} validation scenes in {args.out}')
    if args.crops:
        make_toy_crops(args.out, args.crops, seed=args.seed)
        print(f'windows of them, by their commonest class, in {args.crops}')


if __name__ == '__main__':
    run_tool(main)
