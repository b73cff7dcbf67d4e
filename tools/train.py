"""Trains a segmentor: python tools/train.py configs/upernet_inceptionnext_t_ade20k.py"""
import argparse
import os

from mmengine.dist import is_main_process

from mmseg_inceptionnext.apis import seeds_table, train, train_seeds
from mmseg_inceptionnext.cli import add_config_options, run_tool
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.engine import end_processes


def parse_seeds(text):
    seeds = text.split(',')
    if not all(seed.isdecimal() and int(seed) < 2**32 for seed in seeds) or len(set(map(int, seeds))) < len(seeds):
        raise argparse.ArgumentTypeError(f'{text}: allowed are different whole numbers from 0 to {2**32 - 1}, such as '
                                         '0,1,2')
    return [int(seed) for seed in seeds]


def parse_args():
    parser = argparse.ArgumentParser(description='Train a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--resume', action='store_true', help='go on from the newest checkpoint in the work dir that reads whole, or '
        'from the file that --cfg-options load_from=FILE names')
    parser.add_argument('--amp', nargs='?', const='fp16', choices=['fp16', 'bf16'],
                        help='train in mixed precision (default: fp16)')
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate by this run's batch over the recipe's")
    batch.add_argument(
        '--match-batch', action='store_true',
        help="accumulate gradients up to the recipe's batch, with all intervals to match")
    parser.add_argument('--compile', action='store_true', help='with torch.compile: faster on a GPU after minutes')
    parser.add_argument('--deterministic', action='store_true', help='deterministic algorithms only: slower')
    parser.add_argument('--seeds', type=parse_seeds, metavar='0,1,2',
                        help='train once with each seed, in work-dir/seed_N, and print mean and standard deviation')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    add_config_options(parser, 'train_dataloader.batch_size=4')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    resume = args.resume and ((args.cfg_options or {}).get('load_from') or True)
    options = dict(
        resume=resume, amp=args.amp, auto_scale_lr=args.auto_scale_lr, trust_checkpoint=args.trust_checkpoint,
        deterministic=args.deterministic, accumulate=args.match_batch, compiles=args.compile)
    if args.seeds:
        results = train_seeds(cfg, args.seeds, **options)
        if is_main_process():
            print(seeds_table(results))
    else:
        train(cfg, **options)
    end_processes()


if __name__ == '__main__':
    run_tool(main)
