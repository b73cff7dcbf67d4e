"""Draws what a model looks at: python tools/visualize_features.py CONFIG CHECKPOINT street.jpg --out-dir features"""
import argparse
import sys

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.analysis import visualize_features
from mmseg_inceptionnext.cli import run_tool


def parse_args():
    parser = argparse.ArgumentParser(description='Draw Grad-CAM of a stage for a class over images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, or folders to search for images')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--stage', type=int, default=4, help='of the backbone, from 1 (default: 4)')
    parser.add_argument('--class', dest='class_name', metavar='NAME',
                        help='class name (default: the class that most pixels of the image are predicted as)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    segmenter = Segmenter(args.checkpoint, args.config, trust_checkpoint=args.trust_checkpoint)
    written, failures = visualize_features(segmenter, args.images, args.out_dir, args.stage, args.class_name)
    print(*written, sep='\n')
    if failures:
        sys.exit('\n'.join([f'Grad-CAM failed for {len(failures)}:', *failures]))


if __name__ == '__main__':
    run_tool(main)
