"""What becomes of each kind of broken or unusual file is what docs/broken_files.md says."""
import copy
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.fileio.backends import LocalBackend
from mmseg.registry import DATASETS

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.datasets import check_dataset
from mmseg_inceptionnext.datasets.files import PNG, find_damage
from mmseg_inceptionnext.errors import BrokenSampleError, LabelError

from broken_files import IMAGES, LABELS, is_locked, put_good_files, resolved, table
from utils import ROOT, TOY, save_checkpoint

CASES = [pytest.param(case, id=f'{kind}: {case.name}') for kind, cases in (('image', IMAGES), ('label', LABELS))
         for case in cases]
CAMVID = Config.fromfile(str(ROOT / 'configs/_base_/datasets/camvid.py'))
JPEG_NOISE = 3  # mean difference of a channel from 0 to 255


def test_there_are_cases_and_the_document_lists_them():
    assert len(IMAGES) >= 40 and len(LABELS) >= 20
    text = (ROOT / 'docs/broken_files.md').read_text()
    assert text.endswith(table()), f'put this at the end of docs/broken_files.md:\n{table()}'


def test_a_png_without_a_header_is_damaged():
    end = struct.pack('>I', 0) + b'IEND' + struct.pack('>I', zlib.crc32(b'IEND'))
    assert 'begin with an IHDR chunk' in find_damage(PNG + end)


@pytest.fixture(autouse=True)
def locked_files_are_locked(monkeypatch):
    """Also for root, who may read everything."""
    get = LocalBackend.get

    def guarded(self, path):
        if is_locked(Path(path)):
            raise PermissionError(13, 'Permission denied', path)
        return get(self, path)

    monkeypatch.setattr(LocalBackend, 'get', guarded)


def config(root, **options):
    """The training data of configs/_base_/datasets/camvid.py as far as CheckLabels, without chance."""
    cfg = copy.deepcopy(CAMVID)
    steps = cfg.train_pipeline
    last = [step.type for step in steps].index('CheckLabels')
    cfg.train_dataloader.dataset.update(data_root=str(root), pipeline=steps[:last + 1], **options,
                                        serialize_data=False)  # which calls the garbage collector
    return cfg


@pytest.fixture
def changed(tmp_path):
    def write(case):
        sample = put_good_files(tmp_path)
        case.write(sample)
        return sample
    return write


@pytest.mark.parametrize('case', CASES)
def test_check_dataset(case, changed, tmp_path):
    changed(case)
    report, = check_dataset(config(tmp_path, **case.options), ['train'])
    level, _, words = resolved(case.check).partition(': ')
    if level == 'fine':
        assert not report.problems
        return
    assert report.count('error') > 0 if level == 'error' else report.count('error') == 0
    found = [problem for problem in report.problems if problem.level == level and words in problem.message]
    assert found and 'bad' in found[0].path and f'{found[0].path}: {found[0].message}' in report.to_text()


def distance(found, expected):
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected).mean()


@pytest.mark.parametrize('case', CASES)
def test_training(case, changed, tmp_path):
    changed(case)
    dataset = DATASETS.build(config(tmp_path, **case.options).train_dataloader.dataset)
    indices = [i for i in range(len(dataset)) if 'good' not in dataset.get_data_info(i)['img_path']]
    outcome, _, words = resolved(case.train).partition(': ')
    if outcome == 'not in the dataset':
        assert not indices and len(dataset) == 1
        return
    index, = indices
    if outcome in ('fine', 'differs'):
        results = dataset[index]
        same = distance(results['img'][..., ::-1], case.picture) < JPEG_NOISE
        same = same and distance(results['gt_seg_map'], case.classes) == 0
        assert same == (outcome == 'fine')
        return
    with pytest.raises(BrokenSampleError if outcome == 'stops' else LabelError) as caught:
        dataset[index]
    key = 'img_path' if resolved(case.infer).startswith('fails') else 'seg_map_path'
    path = dataset.get_data_info(index)[key]
    assert str(caught.value).startswith(f'{path}: ') and words in str(caught.value)
    assert 'tools/check_dataset.py' in str(caught.value)


@pytest.mark.parametrize('case', CASES)
def test_skipping(case, changed, tmp_path):
    """``on_error='skip'`` replaces what stops training, and nothing else."""
    changed(case)
    dataset = DATASETS.build(config(tmp_path, on_error='skip', **case.options).train_dataloader.dataset)
    outcome = resolved(case.train).partition(': ')[0]
    index = [i for i in range(len(dataset)) if 'good' not in dataset.get_data_info(i)['img_path']]
    if outcome == 'stops always':
        with pytest.raises(LabelError):
            dataset[index[0]]
    elif outcome == 'stops':
        assert 'good' in dataset[index[0]]['img_path'] and 'good' in dataset[index[0]]['img_path']
        assert dataset.skipped_samples() == {dataset.get_data_info(index[0])['img_path']: 2}
        return
    elif index:
        assert dataset[index[0]]['img_path'] == dataset.get_data_info(index[0])['img_path']
    assert dataset.skipped_samples() == {}


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    return Segmenter(str(save_checkpoint(TOY, tmp_path_factory.mktemp('checkpoint') / 'toy.pth')))


@pytest.mark.parametrize('case', IMAGES, ids=[case.name for case in IMAGES])
def test_inference(case, changed, tmp_path, segmenter):
    sample = changed(case)
    paths = [path for path in sample.image.parent.iterdir() if path.stem != 'good'] or [sample.image]
    outcome, _, words = resolved(case.infer).partition(': ')
    if outcome == 'fails':
        with pytest.raises(ValueError) as caught:
            segmenter(str(paths[0]))
        assert str(caught.value).startswith(f'{paths[0]}: ') and words in str(caught.value)
        return
    result = segmenter(str(paths[0]))
    assert result.mask.shape == result.image.shape[:2] == case.picture.shape[:2]
    assert (distance(result.image, case.picture) < JPEG_NOISE) == (outcome == 'fine')


