"""Segments images with a checkpoint, through the config's own test pipeline."""
import os.path as osp
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Dict, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_inceptionnext.apis.config import build_model, load_config
from mmseg_inceptionnext.datasets.files import read, why_unreadable
from mmseg_inceptionnext.datasets.folders import loaders
from mmseg_inceptionnext.engine import (
    check_segmentor,
    guarded_build,
    load_source,
    parse_embedded_config,
    safe_checkpoints,
)
from mmseg_inceptionnext.engine.checkpoint import segmentor_weights
from mmseg_inceptionnext.models import fuse

from .overlay import class_share, draw_overlay


@dataclass
class SegmentationResult:
    """The classes of one image.

    Attributes:
        image: H x W x 3, uint8, RGB, at the original size.
        mask: H x W, the class id of each pixel, from 0; uint8, or uint16 above 256 classes.
        classes: name of each class id.
        palette: colour of each class id, RGB from 0 to 255.
    """
    image: np.ndarray
    mask: np.ndarray
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image painted with its classes and a legend of those present."""
        return draw_overlay(self.image, self.mask, self.classes, self.palette, opacity)

    def share(self) -> Dict[str, float]:
        """Share of the pixels of each class present, largest first."""
        return class_share(self.mask, self.classes)


class Segmenter:
    """A trained segmentor that takes image files.

    Args:
        checkpoint: file that MMEngine's runner or ``tools/publish_checkpoint.py`` wrote, or what else
            :func:`mmseg_inceptionnext.engine.load_source` takes.
        config: config file. Default: the config inside the checkpoint.
        device: such as ``cpu`` or ``cuda:0``. Default: the best there is.
        fuse_model: fold the norms into the convolutions, see :func:`mmseg_inceptionnext.fuse`.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, or does not fit the model.
        ValueError: if it holds no config and none is given, if neither checkpoint nor config name and colour the
            classes, or if the device is not there.
    """

    def __init__(self,
                 checkpoint: str,
                 config: Optional[str] = None,
                 device: Optional[str] = None,
                 fuse_model: bool = False,
                 trust_checkpoint: bool = False) -> None:
        own_cfg = load_config(config) if config else None
        with safe_checkpoints(trust_checkpoint, own_cfg):
            loaded = load_source(checkpoint)
            meta = loaded.meta
            self.cfg = own_cfg or self._embedded_config(meta, checkpoint)
            source = config or f'the config inside {checkpoint}'
            with nullcontext() if config else guarded_build():
                self.model = revert_sync_batchnorm(build_model(self.cfg, source))
                self._build_pipeline(meta, source)
        check_segmentor(self.model, loaded, checkpoint)
        self.model.load_state_dict(segmentor_weights(loaded, checkpoint))
        if len(self.classes) != self.model.num_classes:
            raise ValueError(f'{checkpoint} names {len(self.classes)} classes, but its model predicts '
                             f'{self.model.num_classes}; give the config it was trained with by --config')
        try:
            self.model.to(device or get_device()).eval()
            if fuse_model:
                fuse(self.model, inplace=True)
        except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch built without CUDA
            raise ValueError(f'--device {device} cannot be used here: {error}') from error

    def _build_pipeline(self, meta: dict, source: str) -> None:
        if 'test_dataloader' not in self.cfg:
            raise ValueError(f'{source} has no test_dataloader, whose pipeline reads the images; give the config that '
                             'the model was trained with by --config')
        dataset = self.cfg.test_dataloader.dataset
        self.classes, self.palette = self._classes_of(meta, dataset)
        steps = [step for step in dataset.pipeline if step['type'] != 'LoadAnnotations']
        self._load, self._transform = Compose(steps[:1]), Compose(steps[1:])

    @staticmethod
    def _embedded_config(meta: dict, checkpoint: str) -> Config:
        if not isinstance(meta.get('cfg'), str):
            raise ValueError(f'{checkpoint} holds no config; give the one it was trained with by --config')
        return parse_embedded_config(meta['cfg'], checkpoint)

    @staticmethod
    def _classes_of(meta: dict, dataset: dict):
        metainfo = meta['dataset_meta']
        if not metainfo.get('classes'):
            metainfo = DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).metainfo
        if not metainfo.get('classes'):
            raise ValueError('neither the checkpoint nor the dataset of the config names the classes; add '
                             'metainfo=dict(classes=(...), palette=[...]) to the dataset of the config')
        classes, palette = tuple(metainfo['classes']), [list(color) for color in metainfo.get('palette', ())]
        if len(palette) != len(classes):
            raise ValueError(f'{len(classes)} classes are named and {len(palette)} colours; give each class one in '
                             'metainfo=dict(classes=(...), palette=[...]) of the dataset, and the config by --config')
        return classes, palette

    @torch.no_grad()
    def __call__(self, path: str) -> SegmentationResult:
        """Segments one image file, as the config's test pipeline reads it.

        Raises:
            ValueError: if the file is missing or is no image that can be read.
        """
        loaded = self._read(path)
        image = loaded['img'].copy()
        data = pseudo_collate([self._transform(loaded)])
        prediction = self.model.test_step(data)[0].pred_sem_seg.data.squeeze(0)
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        return SegmentationResult(image[..., ::-1], prediction.cpu().numpy().astype(dtype), self.classes, self.palette)

    def _read(self, path: str) -> dict:
        if not osp.isfile(path):
            raise ValueError(f'{path}: no such file')
        try:
            read(path)  # what is cut off or damaged would be made up
            return self._load(dict(img_path=path))
        except ValueError as error:
            raise ValueError(f'{path}: cannot be read as an image: it {error}') from error
        except Exception as error:  # OpenCV, mmcv and the file system each have their own errors for a bad file
            loader = loaders(self._load).get('img_path')
            reason = loader and why_unreadable(path, loader)
            raise ValueError(f'{path}: cannot be read as an image: '
                             f'{f"it {reason}" if reason else type(error).__name__}') from error
