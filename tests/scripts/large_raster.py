"""Segments a GeoTIFF that does not fit, and measures what it takes.

    python tests/scripts/large_raster.py configs/fpn_inceptionnext_a_camvid.py --images data/camvid/images/test

Makes a GeoTIFF of 20,000 x 20,000 pixels, of a folder of images (or of drawn scenes) side by side with noise, in UTM.
It is segmented in a process of its own, once to the end, and once killed at half and taken up again. Prints the time,
and the peak of the memory above that of the loaded model. Exit code 1 if that is above 2 GiB, if the two results differ
in a byte, if they lie elsewhere than the image, or if a cut of 3,000 x 2,000 is not what sliding windows give whole.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
import torch
from mmseg.registry import DATASETS
from rasterio.windows import Window

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.analysis.stock import randomise
from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.datasets import make_toy_ade20k

LIMIT = 2.0  # GiB above the model
CUT = 3000, 2000  # width and height
PLACE = dict(crs='EPSG:32633', transform=rasterio.Affine(0.1, 0, 390000, 0, -0.1, 5820000))
JPEG = dict(driver='GTiff', count=3, dtype='uint8', tiled=True, blockxsize=512, blockysize=512, compress='jpeg',
            photometric='ycbcr')


def parse_args():
    parser = argparse.ArgumentParser(description='Segment a GeoTIFF that does not fit, and measure what it takes')
    parser.add_argument('config', help='config file; its weights are random')
    parser.add_argument('--narrow', action='store_true', help='of an FPN, take few channels: memory is the question')
    parser.add_argument('--images', type=Path, help='folder of images to make it of (default: drawn scenes)')
    parser.add_argument('--side', type=int, default=20000, help='of the GeoTIFF in pixels (default: 20000)')
    parser.add_argument('--window', type=int, default=1024)
    parser.add_argument('--overlap', type=int, default=256)
    parser.add_argument('--folder', type=Path, help='for the files (default: a temporary one)')
    return parser.parse_args()


def save_model(config, narrow, path, window, overlap):
    """A model of random weights, whose config slides over images as they are."""
    cfg = load_config(config)
    cfg.model.backbone.init_cfg = None
    if narrow:
        dims, channels = [16, 24, 32, 48], 16
        cfg.model.backbone.arch = dict(depths=[1] * 4, dims=dims)
        cfg.model.neck.update(in_channels=dims, out_channels=channels)
        cfg.model.decode_head.update(in_channels=[channels] * 4, channels=channels)
    step = window - overlap
    cfg.model.test_cfg = dict(mode='slide', crop_size=(window, window), stride=(step, step))
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    torch.manual_seed(0)
    model = randomise(build_model(cfg, config))
    metainfo = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, dataset_meta=metainfo)), path)


def make_raster(folder, path, side):
    random = np.random.default_rng(0)
    pictures = [cv2.imread(str(file))[..., ::-1] for file in sorted(folder.iterdir())][:100]
    height, width = np.min([picture.shape[:2] for picture in pictures], axis=0)
    pictures = [picture[:height] for picture in pictures]
    with rasterio.open(path, 'w', width=side, height=side, **JPEG, **PLACE) as file:
        for top in range(0, side, height):
            row = np.hstack([pictures[i] for i in random.integers(0, len(pictures), -(-side // width))])[:, :side]
            row = np.clip(row[:side - top] + random.normal(0, 8, row[:side - top].shape).astype(np.float32), 0, 255)
            file.write(row.astype(np.uint8).transpose(2, 0, 1), window=Window(0, top, side, len(row)))


def start(checkpoint, source, target, *options):
    words = [sys.executable, __file__, 'segment', checkpoint, source, target, *options]
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)


def segment(checkpoint, source, target, skip_existing=''):
    """In a process of its own: prints the seconds, and the memory in GiB of the model and at the peak."""
    segmenter = Segmenter(checkpoint)
    model, begin = memory('VmRSS'), time.perf_counter()
    segmenter.segment_file(source, target, skip_existing=bool(skip_existing))
    print(json.dumps(dict(seconds=time.perf_counter() - begin, model=model, peak=memory('VmHWM'))))


def memory(name):
    line, = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024 ** 2


def killed_at_half(checkpoint, source, target, side):
    process, progress = start(checkpoint, source, target), target.parent / f'.{target.name}.progress.tmp'
    while process.poll() is None and not (
            progress.is_file() and json.loads(progress.read_text())['done'] > side / 2):
        time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return json.loads(progress.read_text())['done']


def figures(process):
    last = process.communicate()[0].splitlines()[-1]
    assert process.returncode == 0
    return json.loads(last)


def check_cut(checkpoint, source, folder):
    with rasterio.open(source) as file, rasterio.open(folder / 'cut.tif', 'w', **{
            **file.profile, 'width': CUT[0], 'height': CUT[1], 'compress': 'lzw', 'photometric': 'rgb'}) as cut:
        left, top = (file.width - CUT[0]) // 2, (file.height - CUT[1]) // 2
        cut.write(file.read(window=Window(left, top, *CUT)))
    segmenter = Segmenter(checkpoint)
    segmenter.segment_file(folder / 'cut.tif', folder / 'cut_classes.tif')
    with rasterio.open(folder / 'cut_classes.tif') as file:
        return bool((file.read(1) == segmenter(str(folder / 'cut.tif')).mask).all())


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        checkpoint, source = folder / 'random.pth', folder / 'scene.tif'
        save_model(args.config, args.narrow, checkpoint, args.window, args.overlap)
        if not args.images:
            make_toy_ade20k(str(folder / 'toy'), num_train=40, num_val=1, seed=0)
        make_raster(args.images or folder / 'toy/images/training', source, args.side)
        print(f'{args.side} x {args.side} pixels, {source.stat().st_size / 1e6:.0f} MB', flush=True)
        same_cut = check_cut(checkpoint, source, folder)
        print(f'a cut of {CUT[0]} x {CUT[1]} is the same in memory: {same_cut}', flush=True)
        whole = figures(start(checkpoint, source, folder / 'whole.tif'))
        above = whole['peak'] - whole['model']
        print(f'{whole["seconds"]:.0f} s, peak {above:.2f} GiB above the model of {whole["model"]:.2f} GiB', flush=True)
        done = killed_at_half(checkpoint, source, folder / 'resumed.tif', args.side)
        rest = figures(start(checkpoint, source, folder / 'resumed.tif', 'skip_existing'))
        same = (folder / 'whole.tif').read_bytes() == (folder / 'resumed.tif').read_bytes()
        print(f'killed at row {done}, taken up for {rest["seconds"]:.0f} s, the same file: {same}', flush=True)
        with rasterio.open(folder / 'whole.tif') as file:
            in_place = (file.crs, file.transform, file.shape) == (*PLACE.values(), (args.side, args.side))
        print(f'at the place of the image: {in_place}; {torch.get_num_threads()} threads, {os.cpu_count()} cores')
    if not (same_cut and same and in_place and above < LIMIT):
        sys.exit(1)


if __name__ == '__main__':
    segment(*sys.argv[2:]) if sys.argv[1:2] == ['segment'] else main()
