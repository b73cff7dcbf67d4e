"""A model of random weights."""
import pytest

from mmseg_inceptionnext import Segmenter

from utils import TOY, save_checkpoint


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    return save_checkpoint(TOY, tmp_path_factory.mktemp('checkpoint') / 'toy.pth')


@pytest.fixture(scope='module')
def segmenter(checkpoint):
    return Segmenter(checkpoint)
