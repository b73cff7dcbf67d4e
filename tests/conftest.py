import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

import mmseg_inceptionnext  # noqa: F401 (registers the classes)
from mmseg_inceptionnext.datasets import make_toy_ade20k

from utils import SHORT, TOY, run_tool

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _scope_seed_and_log():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    MMLogger._instance_dict.clear()  # MMEngine would log to the work dir of the last run, which is gone


@pytest.fixture
def in_float64():
    """Also what modules make themselves, as random numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope='session')
def make_once(tmp_path_factory):
    """Makes a folder once in a run of the tests, however many processes share it: ``make_once(name, make)``."""
    shared = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared = shared.parent

    def once(name, make):
        folder, made = shared / name, shared / f'{name}.made'
        with FileLock(f'{folder}.lock'):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope='session')
def toy_root(make_once):
    """A toy dataset of 6 training and 3 validation scenes. Not to be written to: all tests share it."""
    return make_once('toy', lambda folder: make_toy_ade20k(str(folder), num_train=6, num_val=3, seed=0))


@pytest.fixture(scope='session')
def trained(make_once, toy_root):
    """The work dir of two iterations of the toy config, as tools/train.py leaves it; what it printed is in printed.txt.

    ``iter_1.pth``, ``iter_2.pth`` and ``best_mIoU_iter_2.pth``. Not to be written to: all tests share it.
    """
    def train(folder):
        result = run_tool('tools/train.py', TOY, '--work-dir', folder, '--cfg-options', f'data_root={toy_root}', *SHORT)
        (folder / 'printed.txt').write_text(result.stdout)

    return make_once('trained', train)


def shared_data(name):
    """A folder of real images beside the checkout, or a skip that says which one is missing."""
    path = ROOT.parent / 'shared' / name
    if not path.is_dir():
        pytest.skip(f'needs the real images in ../shared/{name}, which is not there')
    return path


@pytest.fixture(scope='session')
def ade20k_sample():
    return shared_data('ade20k_sample')


@pytest.fixture(scope='session')
def camvid():
    return shared_data('camvid')
