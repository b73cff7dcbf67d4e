"""Cuts large images into tiles: python tools/tile_dataset.py IMAGES LABELS --out tiles --size 512"""
import argparse
import os
import os.path as osp

from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.datasets.tiling import tile_dataset


def parse_args():
    parser = argparse.ArgumentParser(
        description='Cut large images and their labels into tiles to train on',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('images', help='folder of images: GeoTIFF and what else rasterio reads, or what OpenCV reads')
    parser.add_argument('labels', help='folder of labels with the same names')
    parser.add_argument('--out', required=True, help='folder to write to: its images and labels')
    parser.add_argument('--size', type=int, default=512, help='of a tile in pixels')
    parser.add_argument('--overlap', type=int, default=0, help='of neighbouring tiles in pixels')
    return parser.parse_args()


def main():
    args = parse_args()
    count = tile_dataset(args.images, args.labels, args.out, args.size, args.overlap)
    kinds = {osp.splitext(name)[1] for name in os.listdir(osp.join(args.out, 'images'))}
    then = (f'python tools/make_config.py {args.out} --out my.py writes a config for them' if kinds == {'.png'} else
            'docs/large_images.md shows the config that TIFF tiles need')
    print(f'{count} tiles in {args.out}' + f'; {then}' * bool(count))


if __name__ == '__main__':
    run_tool(main)
