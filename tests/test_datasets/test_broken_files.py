"""What becomes of each kind of broken or unusual file is what docs/broken_files.md says."""
import copy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.fileio.backends import LocalBackend
from mmseg.registry import DATASETS

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.datasets import check_dataset
from mmseg_inceptionnext.errors import BrokenSampleError, LabelError

from broken_files import ABSENT, IMAGES, LABELS, is_locked, put_good_files, table
from utils import ROOT, TOY, save_checkpoint

CASES = [pytest.param(case, id=f'{kind}: {case.name}') for kind, cases in (('image', IMAGES), ('label', LABELS))
         for case in cases]
CAMVID = Config.fromfile(str(ROOT / 'configs/_base_/datasets/camvid.py'))
JPEG_NOISE = 3  # mean difference of a channel from 0 to 255


def test_the_document_lists_the_cases():
    assert (ROOT / 'docs/broken_files.md').read_text().endswith(table()), f'put this at its end:\n{table()}'


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


def distance(found, expected):
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected).mean()


@pytest.mark.parametrize('case', CASES)
def test_check_and_training(case, tmp_path):
    case.write(put_good_files(tmp_path))
    check_says(case, check_dataset(config(tmp_path), ['train'])[0])
    raising, skipping = (DATASETS.build(config(tmp_path, on_error=how).train_dataloader.dataset)
                         for how in ('raise', 'skip'))
    infos = [raising.get_data_info(i) for i in range(len(raising))]
    index = [i for i, info in enumerate(infos) if 'good' not in info['img_path']]
    if case.train == ABSENT:
        assert not index and len(infos) == 1
        return
    index, = index
    path = infos[index]['img_path']
    if case.train in ('fine', 'differs'):
        results = raising[index]
        same = distance(results['img'][..., ::-1], case.picture) < JPEG_NOISE
        same = same and distance(results['gt_seg_map'], case.classes) == 0
        assert same == (case.train == 'fine')
        assert skipping[index]['img_path'] == path and skipping.skipped_samples() == {}
        return
    with pytest.raises(BrokenSampleError if case.train == 'stops' else LabelError) as caught:
        raising[index]
    named = path if case.infer == 'fails' else infos[index]['seg_map_path']
    assert str(caught.value).startswith(f'{named}: ') and case.words in str(caught.value)
    if case.train == 'stops':
        assert 'good' in skipping[index]['img_path'] and skipping.skipped_samples() == {path: 1}
    else:
        with pytest.raises(LabelError):
            skipping[index]


def check_says(case, report):
    if case.check == 'fine':
        assert not report.problems
        return
    assert (report.count('error') > 0) == (case.check == 'error')
    found = [problem for problem in report.problems if problem.level == case.check and case.words in problem.message]
    assert found and 'bad' in found[0].path and f'{found[0].path}: {found[0].message}' in report.to_text()


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    return Segmenter(str(save_checkpoint(TOY, tmp_path_factory.mktemp('checkpoint') / 'toy.pth')))


@pytest.mark.parametrize('case', IMAGES, ids=[case.name for case in IMAGES])
def test_inference(case, tmp_path, segmenter):
    sample = put_good_files(tmp_path)
    case.write(sample)
    path, = [path for path in sample.image.parent.iterdir() if path.stem != 'good'] or [sample.image]
    if case.infer == 'fails':
        with pytest.raises(ValueError) as caught:
            segmenter(str(path))
        assert str(caught.value).startswith(f'{path}: ') and case.words in str(caught.value)
        return
    result = segmenter(str(path))
    assert result.mask.shape == result.image.shape[:2] == case.picture.shape[:2]
    assert (distance(result.image, case.picture) < JPEG_NOISE) == (case.infer == 'fine')
