"""Measures what reading and writing files costs beside a model.

    python tests/scripts/inference_throughput.py configs/upernet_inceptionnext_t_ade20k.py

Draws a folder of street scenes of 683 x 512. In turns, tools/benchmark.py measures the model alone, fused, on images of
that size in memory, and tools/infer.py segments the folder, from files to files. Prints images a second of both and
their ratio; exit code 1 if the median of the ratios is below 0.9.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_inceptionnext.analysis.stock import randomise
from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.datasets import make_toy_ade20k

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
LEAST = 0.9  # of the model's own throughput
SIZE = (683, 512)  # width and height


def parse_args():
    parser = argparse.ArgumentParser(description='Compare the throughput of files with that of the model alone')
    parser.add_argument('config', help='config file; its weights are random')
    parser.add_argument('--images', type=int, default=200, help='in the folder (default: 200)')
    parser.add_argument('--rounds', type=int, default=3, help='turns of both (default: 3)')
    parser.add_argument('--save', default='index,overlay', help='as in tools/infer.py (default: index,overlay)')
    return parser.parse_args()


def random_checkpoint(config, path):
    cfg = load_config(config)
    cfg.model.backbone.init_cfg = None
    model = randomise(build_model(cfg, config))
    metainfo = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, dataset_meta=metainfo)), path)


def draw(folder, count):
    make_toy_ade20k(str(folder), num_train=count, num_val=1, seed=0)
    for path in (folder / 'images/training').iterdir():
        Image.open(path).resize(SIZE).save(path, quality=92)
    return folder / 'images/training'


def run(tool, *args):
    words = [sys.executable, TOOLS / tool, *args]
    return subprocess.run(list(map(str, words)), check=True, text=True, stdout=subprocess.PIPE).stdout


def model_alone(config, file):
    run('benchmark.py', config, '--shape', SIZE[1], SIZE[0], '--fuse', '--no-memory', '--runs', 20, '--json', file)
    return 1 / statistics.median(json.loads(file.read_text())['rows'][0]['times'])


def from_files(checkpoint, images, out, save):
    summary = json.loads(run('infer.py', checkpoint, images, '--out-dir', out, '--save', save, '--json'))
    assert summary['images'] == len(list(images.iterdir()))
    return summary['images_per_second']


def main():
    args = parse_args()
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        random_checkpoint(args.config, folder / 'random.pth')
        images = draw(folder, args.images)
        for _ in range(args.rounds):
            alone.append(model_alone(args.config, folder / 'alone.json'))
            whole.append(from_files(folder / 'random.pth', images, folder / 'out', args.save))
    ratios = [files / model for files, model in zip(whole, alone)]
    print(f'{args.config}, {args.images} images of 683 x 512, {torch.get_num_threads()} threads: model alone '
          f'{statistics.median(alone):.2f} images a second, from file to file {statistics.median(whole):.2f}; '
          f'ratio {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}')
    if statistics.median(ratios) < LEAST:
        sys.exit(f'below {LEAST}')


if __name__ == '__main__':
    main()
