"""Writes an ONNX file: python tools/export_onnx.py CONFIG CHECKPOINT --out model.onnx"""
import argparse
import sys

from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.export import ExportSettings, export_onnx
from mmseg_inceptionnext.export.images import find_images
from mmseg_inceptionnext.inference.inputs import list_images


def parse_args():
    parser = argparse.ArgumentParser(
        description='Write a segmentor as an ONNX file and compare it with PyTorch on images; exit code 1 if it '
        'differs by more than rounding. Input: uint8, RGB, N x 3 x H x W, from 0 to 255; the normalisation is inside.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write, which ends in .onnx')
    size = parser.add_mutually_exclusive_group()
    size.add_argument('--shape', type=int, nargs=2, metavar=('H', 'W'), help='images of this size only')
    size.add_argument('--dynamic', action='store_true', help='images of any size (default)')
    parser.add_argument('--output', choices=['logits', 'classes'], default='logits', help='logits (default): float32, '
                        'at the low resolution of the head; classes: class ids, at the size of the input')
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument('--half', action='store_true', help='compute in float16')
    precision.add_argument('--int8', nargs='+', metavar='IMAGE', help='convolve in int8, with ranges measured on 20 of '
                           'these images or folders, such as those for training; for CPUs with VNNI')
    parser.add_argument('--images', nargs='+', metavar='IMAGE', help='images or folders to compare on (default: the '
                        "first five of the config's test set, or drawn scenes where it is not there)")
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    with find_images(args.images, args.config) as (images, source):
        settings = ExportSettings(
            args.shape and tuple(args.shape), args.output,
            'float16' if args.half else 'int8' if args.int8 else 'float32', list_images(args.int8 or ()))
        agreement = export_onnx(args.config, args.checkpoint, args.out, images, settings, args.trust_checkpoint)
    print(f'{args.out}: {agreement}; compared on {source}')
    if not agreement.passed:
        sys.exit(f'{args.out} was not written, since it differs from PyTorch by more than is allowed')


if __name__ == '__main__':
    run_tool(main)
