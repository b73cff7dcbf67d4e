"""What the runner is given on a GPU, tried on any machine."""
import os

import pytest
import torch
from mmengine.model import BaseDataPreprocessor

from mmseg_inceptionnext.engine import build_runner, runner
from mmseg_inceptionnext.evaluation import protocol

from utils import short_config

CUBLAS = 'CUBLAS_WORKSPACE_CONFIG'


@pytest.fixture(params=['cpu', 'cuda'])
def device(monkeypatch, request):
    monkeypatch.setattr(runner, 'get_device', lambda: request.param)
    monkeypatch.setenv(CUBLAS, '')  # which is then restored
    monkeypatch.delenv(CUBLAS)
    yield request.param
    torch.use_deterministic_algorithms(False)


def preprocessors(built):
    return [module for module in built.model.modules() if isinstance(module, BaseDataPreprocessor)]


@pytest.mark.parametrize('views', [False, True])
def test_batches_are_copied_without_waiting(toy_root, tmp_path, device, views):
    cfg = short_config(toy_root, tmp_path, **{'val_dataloader.pin_memory': False})
    if views:
        protocol.apply_protocol(cfg, 'ms')
    built = build_runner(cfg)
    on_gpu = device == 'cuda'
    assert preprocessors(built) and all(part._non_blocking == on_gpu for part in preprocessors(built))
    assert cfg.train_dataloader.get('pin_memory', False) == cfg.test_dataloader.get('pin_memory', False) == on_gpu
    assert cfg.val_dataloader.pin_memory is False
    assert built.build_dataloader(cfg.train_dataloader).pin_memory == on_gpu


def test_deterministic_products(toy_root, tmp_path, device):
    build_runner(short_config(toy_root, tmp_path / 'a'))
    assert CUBLAS not in os.environ
    for name, own in (('b', None), ('c', ':16:8')):
        if own:
            os.environ[CUBLAS] = own
        cfg = short_config(toy_root, tmp_path / name, randomness=dict(seed=0, deterministic=True))
        build_runner(cfg)
        assert os.environ.get(CUBLAS) == (own or (':4096:8' if device == 'cuda' else None))
        os.environ.pop(CUBLAS, None)
