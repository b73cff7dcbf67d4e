"""Prints the whole config as a run reads it: python tools/print_config.py CONFIG --cfg-options KEY=VALUE"""
import argparse

from mmseg_inceptionnext.cli import add_config_options, run_tool
from mmseg_inceptionnext.config import load_config


def parse_args():
    parser = argparse.ArgumentParser(
        description='Print a config with all that it inherits and the options applied; what is printed is a config')
    parser.add_argument('config', help='config file')
    add_config_options(parser, 'train_dataloader.batch_size=4', 'model.backbone.arch=small')
    return parser.parse_args()


def main():
    args = parse_args()
    print(load_config(args.config, args.cfg_options).pretty_text)


if __name__ == '__main__':
    run_tool(main)
