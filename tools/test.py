"""Evaluates a checkpoint: python tools/test.py CONFIG CHECKPOINT"""
import argparse
import os
import sys

from mmengine.config import DictAction

from mmseg_inceptionnext.apis import ConfigError, load_config, test
from mmseg_inceptionnext.datasets import MissingDatasetError, SampleError
from mmseg_inceptionnext.engine import CheckpointError


def parse_args():
    parser = argparse.ArgumentParser(description='Evaluate a segmentor on the test set of its config')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log and the metrics (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--out', metavar='DIR', help="folder for the predictions as PNG, in the dataset's label values")
    parser.add_argument('--show-dir', metavar='DIR', help='folder for the predictions painted over the images')
    parser.add_argument('--tta', action='store_true', help='average over scales and flips (tta_pipeline)')
    parser.add_argument('--fuse', action='store_true', help='fold the norms into the convolutions first: faster')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='override settings of the config, such as data_root=DIR test_dataloader.num_workers=0')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    try:
        cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
        test(cfg, args.checkpoint, args.out, args.show_dir, args.tta, args.fuse, args.trust_checkpoint)
    except (ConfigError, MissingDatasetError, SampleError, CheckpointError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
