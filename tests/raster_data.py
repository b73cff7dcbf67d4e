"""Small rasters, and checkpoints of narrow models that go over them in windows."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_inceptionnext import Segmenter

from utils import ROOT, TOY, narrow, randomise

rasterio = pytest.importorskip('rasterio', reason="rasterio is not installed: pip install -e '.[geo]'")
WINDOW, OVERLAP = 96, 24
NO_RESIZE = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
PLACE = dict(crs='EPSG:32633', transform=rasterio.Affine(0.5, 0, 390000, 0, -0.5, 5820000))


def save_model(path, classes=5, loader=None, in_channels=3, kind='MemoryEfficientEncoderDecoder', **more):
    """A checkpoint of a narrow model that slides."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(str(ROOT / TOY))
    narrow(cfg.model)
    cfg.model.type = kind
    cfg.model.backbone.in_channels = in_channels
    cfg.model.decode_head.num_classes = classes
    cfg.model.data_preprocessor.update(mean=[100] * in_channels, std=[50] * in_channels, **more)
    cfg.model.test_cfg = dict(mode='slide', crop_size=(WINDOW, WINDOW), stride=(WINDOW - OVERLAP, WINDOW - OVERLAP))
    names = [f'c{i}' for i in range(classes)]
    pipeline = [loader, NO_RESIZE[1]] if loader else NO_RESIZE
    dataset = dict(type='FolderDataset', metainfo=dict(classes=names, palette=[[40 * i, 9, 9] for i in range(classes)]))
    cfg.test_dataloader = dict(dataset=dict(dataset, pipeline=pipeline))
    model = randomise(MODELS.build(cfg.model))
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, dataset_meta=dataset['metainfo'])),
               path)
    return Segmenter(str(path))


def save_raster(path, array, **profile):
    height, width, count = array.shape
    with rasterio.open(path, 'w', height=height, width=width, count=count, dtype=array.dtype,
                       **{'driver': 'GTiff', **PLACE, **profile}) as file:
        file.write(array.transpose(2, 0, 1))
    return str(path)


def picture(height, width, bands=3, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, bands)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)
