"""Checks images and labels before training: python tools/check_dataset.py configs/upernet_inceptionnext_t_ade20k.py"""
import argparse
import json
import os
import sys

from mmseg_inceptionnext.cli import add_config_options, run_tool
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import check_dataset


def parse_args():
    parser = argparse.ArgumentParser(
        description='Read every image and label that a config names, say by name what is wrong, and count the classes; '
        'the exit code is 1 if there is an error, warnings do not count')
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', nargs='+', choices=('train', 'val', 'test'), default=('train', 'val'),
                        help='which dataloaders of the config (default: train val)')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='processes (default: one a processor)')
    parser.add_argument('--json', action='store_true', help='print JSON: a list with a report for each dataset')
    add_config_options(parser, 'train_dataloader.dataset.reduce_zero_label=False')
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs}: give 1 or more')
    return args


def main():
    args = parse_args()
    reports = check_dataset(load_config(args.config, args.cfg_options), args.split, args.jobs)
    if args.json:
        print(json.dumps([report.to_dict() for report in reports], indent=2))
    else:
        print(*[report.to_text() for report in reports], sep='\n\n')
    sys.exit(any(report.count('error') for report in reports))


if __name__ == '__main__':
    run_tool(main)
