"""Draws the curves of training runs: python tools/plot_log.py work_dirs/a work_dirs/b --out curves.png"""
import argparse

from mmseg_inceptionnext.analysis import describe, plot_log, read_run
from mmseg_inceptionnext.cli import run_tool


def parse_args():
    parser = argparse.ArgumentParser(
        description='Draw loss, learning rate and mIoU of training runs against the iterations, from the JSON that '
        "MMEngine's runner writes; a run that was resumed is one curve")
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dir of a run')
    parser.add_argument('--out', required=True, help='picture to write, such as curves.png or curves.pdf')
    return parser.parse_args()


def main():
    args = parse_args()
    runs = [read_run(work_dir) for work_dir in args.work_dirs]
    plot_log(runs, args.out)
    for run in runs:
        print(describe(run), *run.notes, sep='\n')
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
