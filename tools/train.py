"""Trains a segmentor: python tools/train.py configs/upernet_inceptionnext_t_ade20k.py"""
import argparse
import os
import sys

from mmengine.config import DictAction

from mmseg_inceptionnext.apis import ConfigError, load_config, train
from mmseg_inceptionnext.datasets import MissingDatasetError
from mmseg_inceptionnext.engine import CheckpointError
from mmseg_inceptionnext.evaluation import LabelRangeError


def parse_args():
    parser = argparse.ArgumentParser(description='Train a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work dir')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate by this run's batch over the recipe's")
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='override settings of the config, such as data_root=DIR train_dataloader.batch_size=4')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    try:
        cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
        train(cfg, args.resume, args.amp, args.auto_scale_lr, args.trust_checkpoint)
    except (ConfigError, LabelRangeError, MissingDatasetError, CheckpointError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
