"""Segments images: python tools/infer.py CHECKPOINT street.jpg photos/ --out-dir results"""
import argparse
import sys

from mmseg_inceptionnext.engine import CheckpointError
from mmseg_inceptionnext.inference import Segmenter, infer


def parse_args():
    parser = argparse.ArgumentParser(
        description='Segment images: NAME.png holds the class id of each pixel, NAME_overlay.jpg a picture to look at')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image files, or folders to search for images')
    parser.add_argument('--out-dir', required=True, help='folder for the results')
    parser.add_argument('--config', help='config file (default: the config inside the checkpoint)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the painted classes, 0 to 1 (default: 0.5)')
    parser.add_argument('--fuse', action='store_true', help='fold the norms into the convolutions first: faster')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        segmenter = Segmenter(args.checkpoint, args.config, args.device, args.fuse, args.trust_checkpoint)
        written, failures = infer(segmenter, args.inputs, args.out_dir, args.opacity)
    except (CheckpointError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(*written, sep='\n')
    if failures:
        sys.exit('\n'.join([f'{len(failures)} of {len(written) + len(failures)} images failed:', *failures]))


if __name__ == '__main__':
    main()
