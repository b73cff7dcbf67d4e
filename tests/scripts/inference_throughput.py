"""Measures what reading and writing files costs beside a model.

    python tests/scripts/inference_throughput.py configs/upernet_inceptionnext_t_ade20k.py --images 200

Draws street scenes of 683 x 512, and segments them in turns: the model alone over one prepared image, and the
same number of files from disk to disk as tools/infer.py does it. Prints images a second of both, and their ratio.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.apis import load_config
from mmseg_inceptionnext.apis.compare_stock import randomise
from mmseg_inceptionnext.apis.config import build_model
from mmseg_inceptionnext.datasets import make_toy_ade20k
from mmseg_inceptionnext.inference import Output, infer


def parse_args():
    parser = argparse.ArgumentParser(description='Compare the throughput of files with that of the model alone')
    parser.add_argument('config', help='config file; its weights are random')
    parser.add_argument('--images', type=int, default=200, help='how many in all (default: 200)')
    parser.add_argument('--rounds', type=int, default=5, help='turns that they are spread over (default: 5)')
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
    paths = sorted((folder / 'images/training').iterdir())
    for path in paths:
        Image.open(path).resize((683, 512)).save(path, quality=92)
    return [str(path) for path in paths]


def main():
    args = parse_args()
    output, alone, whole = Output(args.save.split(',')), [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        random_checkpoint(args.config, folder / 'random.pth')
        segmenter = Segmenter(folder / 'random.pth', fuse_model=True, probabilities=output.needs_probabilities)
        paths = draw(folder, args.images)
        prepared = segmenter.prepare(paths[0]).data
        segmenter.backend.predict([prepared], output.needs_probabilities)
        for i in range(args.rounds):
            part = paths[i::args.rounds]
            start = time.perf_counter()
            for _ in part:
                segmenter.backend.predict([prepared], output.needs_probabilities)
            alone.append(len(part) / (time.perf_counter() - start))
            whole.append(infer(segmenter, part, str(folder / 'out'), output).images_per_second)
    ratios = [files / model for files, model in zip(whole, alone)]
    print(f'{args.config}, {args.images} images of 683 x 512, {torch.get_num_threads()} threads: model alone '
          f'{statistics.median(alone):.2f} images a second, from file to file {statistics.median(whole):.2f}; '
          f'ratio {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}')


if __name__ == '__main__':
    main()
