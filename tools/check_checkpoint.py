"""Says what a checkpoint holds and whether it would load: python tools/check_checkpoint.py FILE --config CONFIG"""
import argparse
import sys

from mmseg_inceptionnext.apis import check_checkpoint
from mmseg_inceptionnext.cli import run_tool


def parse_args():
    parser = argparse.ArgumentParser(
        description='Say what a checkpoint holds and whether it would load; the exit code is 1 if it would not')
    parser.add_argument('checkpoint', help='checkpoint file, or a URL or timm:// name')
    parser.add_argument('--config', help='config it is meant for (default: the one inside the checkpoint)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    table, problem = check_checkpoint(args.checkpoint, args.config, args.trust_checkpoint)
    print(table)
    if problem:
        sys.exit(f'would not load: {problem}')
    print('would load completely')


if __name__ == '__main__':
    run_tool(main)
