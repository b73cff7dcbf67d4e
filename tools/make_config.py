"""Writes a config for a folder of images and labels: python tools/make_config.py DATA --out my.py --classes road,car"""
import argparse
import shlex
import sys
from pathlib import Path

from mmseg_inceptionnext.apis.make_config import Options, make_config, plot
from mmseg_inceptionnext.cli import run_tool

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def share(text):
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'{text}: allowed is a number between 0 and 1')
    return value


def parse_args():
    parser = argparse.ArgumentParser(
        description='Look at a folder of images and labels, and write a config that tools/train.py runs')
    parser.add_argument('data', help='folder of images and labels')
    parser.add_argument('--out', required=True, help='config to write, a file that ends in .py')
    parser.add_argument('--classes', help='names of the classes, a,b,c, or a file with one a line, and its colour or '
                        'value in the labels if that is not the number of the line (default: classes.txt or the like '
                        'in the folder)')
    parser.add_argument('--head', choices=('upernet', 'fpn'), default='upernet', help='decode head (default: upernet)')
    parser.add_argument('--arch', choices=('a', 't', 's', 'b'), default='t', help='size of the backbone (default: t)')
    parser.add_argument('--pretrained', metavar='FILE', help="weights of the backbone, or none (default: the authors')")
    parser.add_argument('--load-from', metavar='FILE', help='start from a trained segmentor, perhaps of other classes')
    parser.add_argument('--val-share', type=share, default=0.2, help='share of the pairs for validation, where the '
                        'folder has no split (default: 0.2)')
    parser.add_argument('--seed', type=int, default=0, help='with which they are drawn (default: 0)')
    parser.add_argument('--zero', choices=('class', 'ignore'), help='what the value 0, or black, is (default: told by '
                        'the number of the classes)')
    parser.add_argument('--class-weights', action='store_true', help='weigh rare classes more in the loss')
    parser.add_argument('--plot', metavar='FILE', help='draw the classes and the sizes of the images, too')
    return parser.parse_args()


def main():
    args = vars(parse_args())
    picture = args.pop('plot')
    command = shlex.join(['python', 'tools/make_config.py', *sys.argv[1:]])
    text, _, found = make_config(Options(configs=str(CONFIGS), command=command, **args))
    print(text)
    print(f'written: {args["out"]}; train with: python tools/train.py {shlex.quote(args["out"])}')
    if picture:
        plot(found, picture)
        print(f'written: {picture}')


if __name__ == '__main__':
    run_tool(main)
