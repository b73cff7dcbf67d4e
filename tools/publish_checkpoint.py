"""Writes a checkpoint for sharing: python tools/publish_checkpoint.py CHECKPOINT NAME.pth, or --folder DIR"""
import argparse

from mmseg_inceptionnext.apis import publish_checkpoint, publish_folder
from mmseg_inceptionnext.cli import run_tool


def parse_args():
    parser = argparse.ArgumentParser(
        description='Write a checkpoint for sharing: weights, classes, palette and config, as a file with its SHA-256 '
        'in the name, or as a folder with a model card')
    parser.add_argument('checkpoint', help="file that MMEngine's runner wrote, or a folder of this tool")
    parser.add_argument(
        'out', nargs='?', help='file to write, .pth or .safetensors; NAME.pth becomes NAME-1a2b3c4d.pth')
    parser.add_argument('--folder', metavar='DIR', help='write a folder in the place of a file')
    parser.add_argument('--fuse', action='store_true', help='with the norms folded into the convolutions: the folder '
                        'is for prediction only')
    parser.add_argument('--push', metavar='USER/NAME', help='upload the folder to the hub of Hugging Face (never '
                        'tested against the real hub)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    args = parser.parse_args()
    if bool(args.out) == bool(args.folder):
        parser.error('give a file to write, or --folder DIR')
    if args.out and (args.fuse or args.push):
        parser.error('--fuse and --push are for a folder: give --folder DIR in the place of the file')
    return args


def main():
    args = parse_args()
    if args.folder:
        print(publish_folder(args.checkpoint, args.folder, args.fuse, args.push, args.trust_checkpoint))
    else:
        print(publish_checkpoint(args.checkpoint, args.out, args.trust_checkpoint))


if __name__ == '__main__':
    run_tool(main)
