from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

import mmseg_inceptionnext  # noqa: F401 (registers the classes)
from mmseg_inceptionnext.datasets import make_toy_ade20k

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _scope_seed_and_log():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    MMLogger._instance_dict.clear()  # MMEngine would log to the work dir of the last run, which is gone


@pytest.fixture(scope='session', autouse=True)
def _formatted_once():
    """MMEngine formats the config for each checkpoint anew, which takes longer than what these runs train."""
    formatted, pretty_text = {}, Config.pretty_text.fget

    def remembered(self):
        key = repr(self)
        if key not in formatted:
            formatted[key] = pretty_text(self)
        return formatted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(remembered))
        yield


@pytest.fixture(scope='session')
def toy_root(tmp_path_factory):
    """A toy dataset of 6 training and 3 validation scenes."""
    root = tmp_path_factory.mktemp('toy')
    make_toy_ade20k(str(root), num_train=6, num_val=3, seed=0)
    return root


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
