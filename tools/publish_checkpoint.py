"""Writes a lean checkpoint for sharing: python tools/publish_checkpoint.py work_dirs/NAME/iter_160000.pth NAME.pth"""
import argparse

from mmseg_inceptionnext.apis import publish_checkpoint
from mmseg_inceptionnext.cli import run_tool


def parse_args():
    parser = argparse.ArgumentParser(
        description='Write a checkpoint for sharing: weights, classes, palette, config, and its SHA-256 in the name')
    parser.add_argument('checkpoint', help="file that MMEngine's runner wrote")
    parser.add_argument('out', help='file to write, .pth or .safetensors; NAME.pth becomes NAME-1a2b3c4d.pth')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    print(publish_checkpoint(args.checkpoint, args.out, args.trust_checkpoint))


if __name__ == '__main__':
    run_tool(main)
