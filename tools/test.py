"""Evaluates a checkpoint: python tools/test.py CONFIG CHECKPOINT [--protocol paper]"""
import argparse
import os

from mmseg_inceptionnext.apis import evaluate
from mmseg_inceptionnext.cli import add_config_options, run_tool
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.engine import end_processes
from mmseg_inceptionnext.evaluation import PROTOCOLS


def parse_args():
    parser = argparse.ArgumentParser(
        description='Evaluate a segmentor on the test set of its config, or predict images without labels (--no-gt)')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, model folder or hf://USER/NAME')
    parser.add_argument('--work-dir', help='folder for the log and the metrics (default: work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--out', metavar='DIR', help="folder for the predictions as NAME.png, in the dataset's label values; for "
        'ADE20K that is the format of its benchmark, classes from 1 (default with --no-gt: WORK_DIR/predictions)')
    parser.add_argument(
        '--no-gt', metavar='DIR', help='predict the images of this folder instead of evaluating: no labels needed')
    parser.add_argument('--show-dir', metavar='DIR', help='folder for the predictions painted over the images')
    parser.add_argument(
        '--protocol', choices=PROTOCOLS, default='ss', help="ss: one scale, the config's test pipeline (default); ms: "
        "the config's tta_pipeline; paper: 12 views as MMSegmentation 0.x has them, 0.5 to 1.75 times 2048 x 512 and "
        'flip, whole image')
    parser.add_argument('--tta', action='store_const', dest='protocol', const='ms', help=argparse.SUPPRESS)
    parser.add_argument('--fuse', action='store_true', help='fold the norms into the convolutions first: faster')
    parser.add_argument('--compile', action='store_true',
                        help='with torch.compile: for large test sets, as it takes up to minutes first')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    add_config_options(parser, 'test_dataloader.num_workers=0')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    evaluate(cfg, args.checkpoint, args.out, args.show_dir, fuse_model=args.fuse, protocol=args.protocol,
             no_gt=args.no_gt, trust_checkpoint=args.trust_checkpoint, compiles=args.compile)
    end_processes()


if __name__ == '__main__':
    run_tool(main)
