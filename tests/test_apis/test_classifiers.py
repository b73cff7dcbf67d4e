"""Classifiers as the tools train, evaluate and use them. The peers: Table 9 of the paper, NumPy, timm."""
import json
import os
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS, METRICS, MODELS
from timm.data import ImageNetInfo
from torch import nn

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import make_toy_crops
from mmseg_inceptionnext.engine import build_runner
from mmseg_inceptionnext.errors import BrokenSampleError, ConfigError, InputError, MissingDatasetError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.classify import Classifier

from utils import ROOT, run_tool

PRETRAIN = sorted(path.stem for path in (ROOT / 'configs/pretrain').glob('*_in1k*.py'))
SIZES = {'inceptionnext_a_in1k': 'a', 'inceptionnext_t_in1k': 't', 'inceptionnext_s_in1k': 's',
         'inceptionnext_b_in1k': 'b', 'inceptionnext_b_in1k_384': 'b384'}
# Table 9: learning rate, batch, epochs, warm-up, drop path, Mixup, CutMix, erasing, dropout of the head.
RECIPES = dict(
    a=(1e-3, 1280, 450, 5, 0.1, 0.2, 1., 0.1, 0.), t=(4e-3, 4096, 300, 20, 0.1, 0.8, 1., 0.25, 0.),
    s=(4e-3, 4096, 300, 20, 0.3, 0.8, 1., 0.25, 0.), b=(4e-3, 4096, 300, 20, 0.4, 0.8, 1., 0.25, 0.),
    b384=(5e-5, 1024, 30, 0, 0.7, 0., 0., 0.25, 0.5))
IMAGES = 1281167  # of ImageNet-1K


def config(name):
    return load_config(str(ROOT / f'configs/pretrain/{name}.py'))


@pytest.fixture(scope='module')
def crops(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('crops')
    make_toy_crops(str(toy_root), str(folder), count=1)
    return folder


def toy(crops, work_dir, **options):
    cfg = load_config(str(ROOT / 'configs/pretrain/inceptionnext_a_toy.py'), {'data_root': str(crops), **options},
                      str(work_dir))
    count = len(os.listdir(crops / 'train'))
    for part in (cfg.model, cfg.model.data_preprocessor.mixup, cfg.train_dataloader.dataset,
                 cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        part.num_classes = count
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.fixture(scope='module')
def trained(crops, tmp_path_factory):
    """Work dir and metrics of two iterations."""
    work_dir = tmp_path_factory.mktemp('classifier')
    return work_dir, train(toy(crops, work_dir))


@pytest.mark.parametrize('name', SIZES)
def test_recipe_is_that_of_table_9(name, tmp_path):
    lr, batch, epochs, warm_up, drop_path, mixup, cutmix, erasing, dropout = RECIPES[SIZES[name]]
    cfg = config(name)
    assert cfg.auto_scale_lr.base_batch_size == batch and batch % cfg.train_dataloader.batch_size == 0
    length = IMAGES // batch
    assert cfg.train_cfg.max_iters == pytest.approx(epochs * length, rel=2e-3)
    found, transform = cfg.model.data_preprocessor.mixup, cfg.train_dataloader.dataset.transform
    if found.get('prob', 1.):
        assert (found.mixup_alpha, found.cutmix_alpha) == (mixup, cutmix)
    else:
        assert not mixup and not cutmix
    assert found.label_smoothing == 0.1 and transform.re_prob == erasing
    assert transform.auto_augment == ('rand-m5-inc1-mstd101' if name[14] == 'a' else 'rand-m9-mstd0.5-inc1')
    assert cfg.model.backbone.drop_path_rate == drop_path and cfg.model.get('dropout_ratio', 0.) == dropout
    averages = [hook for hook in cfg.custom_hooks if hook.type == 'EMAHook']
    assert [1 - hook.momentum for hook in averages] == ([0.9999] if '384' in name else [])


@pytest.mark.parametrize('name', [name for name in SIZES if name[14] in 'at' or '384' in name])
def test_learning_rate_and_weight_decay_of_each_parameter_follow_table_9(name):
    lr, batch, epochs, warm_up, *_ = RECIPES[SIZES[name]]
    cfg = config(name)
    init_default_scope('mmseg')
    model = MODELS.build(dict(cfg.model, init_cfg=None))
    runner = Runner.__new__(Runner)
    runner._train_loop = None
    wrapper = runner.build_optim_wrapper.__wrapped__(runner, cfg.optim_wrapper) if False else None
    from mmengine.optim import build_optim_wrapper
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    schedulers = [_scheduler(wrapper, settings) for settings in cfg.param_scheduler]
    total, length = cfg.train_cfg.max_iters, cfg.train_cfg.max_iters // epochs
    expected = {0: (1e-6 if lr > 1e-3 else 5e-7) if warm_up else lr, warm_up * length: lr}
    if warm_up:
        lowest = 1e-5 if lr > 1e-3 else 5e-7
        middle = (total + warm_up * length) // 2
        expected.update({middle: (lr + lowest) / 2, total: lowest})
    else:
        expected.update({total // 2: lr, total: lr})
    seen = {}
    for step in range(total + 1):
        if step in expected:
            seen[step] = [(group['lr'], group['weight_decay']) for group in wrapper.optimizer.param_groups]
        if step > max(expected):
            break
        for scheduler in schedulers:
            scheduler.step()
    assert len(seen) == len(expected) >= 3
    for step, rate in expected.items():
        for (name_, parameter), (found, decay) in zip(model.named_parameters(), seen[step]):
            assert found == pytest.approx(rate, rel=1e-3), (step, name_)
            assert decay == (0.05 if parameter.ndim > 1 else 0.), name_


def _scheduler(wrapper, settings):
    from mmseg.registry import PARAM_SCHEDULERS
    return PARAM_SCHEDULERS.build(dict(settings, optimizer=wrapper))
