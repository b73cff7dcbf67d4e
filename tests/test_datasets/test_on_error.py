"""Broken files in training: named, or replaced and counted, in worker processes too."""
import copy
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.fileio.backends import LocalBackend
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_inceptionnext.datasets import folders
from mmseg_inceptionnext.engine import hooks
from mmseg_inceptionnext.engine.hooks import SkippedSamplesHook, _skipped
from mmseg_inceptionnext.errors import BrokenSampleError, LabelError, SampleError

from utils import ROOT, TOY, run_tool

DATA = Config.fromfile(str(ROOT / 'configs/_base_/datasets/toy_ade20k.py'))
STEM = 'toy_training_0000'


@pytest.fixture
def root(toy_root, tmp_path):
    """A copy of the drawn scenes, to break; six are for training."""
    shutil.copytree(toy_root, tmp_path / 'data')
    return tmp_path / 'data'


def cut(root, *numbers, folder='images', suffix='.jpg'):
    for number in numbers:
        path = root / folder / f'training/{STEM}{number}{suffix}'
        path.write_bytes(path.read_bytes()[:-100])


def build(root, on_error='skip', pipeline=None, split='train', **options):
    dataset = copy.deepcopy(DATA[f'{split}_dataloader'].dataset)
    dataset.update(data_root=str(root), on_error=on_error, **options)
    if pipeline is not None:
        dataset.pipeline = pipeline
    return DATASETS.build(dataset)


def seeded(dataset, index):
    np.random.seed(0)
    return dataset[index]


def name(sample):
    return sample['data_samples'].img_path.rpartition('/')[2]


def test_the_replacement_is_the_next_good_sample_whatever_the_seed(root):
    whole = build(root)
    cut(root, 2, 3, 5)
    cut(root, 4, folder='annotations', suffix='.png')
    dataset = build(root)
    for index, expected in ((0, 0), (1, 1), (2, 0), (3, 0), (4, 0), (5, 0)):
        for seed in (1, 2):
            np.random.seed(seed)
            assert name(dataset[index]) == f'{STEM}{expected}.jpg'
    a, b = seeded(dataset, 2), seeded(whole, 0)  # the random numbers that follow are those of the sample alone
    assert torch.equal(a['inputs'], b['inputs'])
    assert torch.equal(a['data_samples'].gt_sem_seg.data, b['data_samples'].gt_sem_seg.data)


def test_skipped_samples_are_counted_and_logged_once(root, monkeypatch):
    cut(root, 1)
    lines = []
    monkeypatch.setattr(folders, 'print_log', lambda text, **options: lines.append(text))
    dataset = build(root)
    for _ in range(3):
        dataset[1]
    assert dataset.skipped_samples() == {str(root / f'images/training/{STEM}1.jpg'): 3}
    text, = lines
    assert text.startswith('skipped: ') and f'{STEM}1.jpg: ' in text


@pytest.mark.parametrize('backend_args', [None, dict(backend='local')])
def test_each_file_is_read_once(root, monkeypatch, backend_args):
    reads, get = Counter(), LocalBackend.get
    monkeypatch.setattr(LocalBackend, 'get', lambda self, path: reads.update([path]) or get(self, path))
    pipeline = copy.deepcopy(DATA.train_pipeline)
    for step in pipeline[:2]:
        step.backend_args = backend_args
    dataset = build(root, pipeline=pipeline)
    reads.clear()  # of the first labels, whose values are looked at
    for index in (0, 1, 1):
        dataset[index]
    first, second = ([info['img_path'], info['seg_map_path']] for info in map(dataset.get_data_info, range(2)))
    assert reads == {**dict.fromkeys(first, 1), **dict.fromkeys(second, 2)}


def test_a_file_that_could_not_be_read_once_is_skipped_once(root, monkeypatch):
    """Such as one on a network: it is there when the reason is looked for."""
    dataset, get, failures = build(root), LocalBackend.get, [OSError(5, 'Input/output error')]

    def fail_once(self, path):
        if failures:
            raise failures.pop()
        return get(self, path)

    monkeypatch.setattr(LocalBackend, 'get', fail_once)
    assert [name(dataset[0]) for _ in range(2)] == [f'{STEM}1.jpg', f'{STEM}0.jpg']


def test_errors_keep_their_cause(root):
    cut(root, 0)
    (root / f'annotations/training/{STEM}1.png').unlink()
    dataset = build(root, 'raise')
    for index, kind in ((0, AssertionError), (1, ValueError)):
        with pytest.raises(BrokenSampleError) as error:
            dataset[index]
        assert isinstance(error.value.__cause__, kind)


@pytest.mark.parametrize('start', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers_count_together(root, start):
    cut(root, 1, 4)
    dataset = build(root)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, persistent_workers=True, collate_fn=pseudo_collate,
                        multiprocessing_context=start)
    for _ in range(2):
        names = [sample.img_path.rpartition('/')[2] for batch in loader for sample in batch['data_samples']]
        assert names == [f'{STEM}{number}.jpg' for number in (0, 2, 2, 3, 5, 5)]
    paths = [str(root / f'images/training/{STEM}{number}.jpg') for number in (1, 4)]
    assert dataset.skipped_samples() == dict.fromkeys(paths, 2)
    assert _skipped(torch.utils.data.ConcatDataset([dataset, dataset])) == dict.fromkeys(paths, 4)


def test_an_error_of_a_worker_is_its_sentence_alone(root):
    cut(root, 0)
    loader = DataLoader(build(root, 'raise'), num_workers=1, collate_fn=pseudo_collate)
    samples = iter(loader)
    with pytest.raises(BrokenSampleError) as error:
        next(samples)
    samples._shutdown_workers()  # otherwise the garbage collector waits for it
    text = str(error.value)
    assert text.startswith(f'{root}/images/training/{STEM}0.jpg: ') and len(text.splitlines()) == 1
    assert 'on_error=skip' in text


def test_only_broken_samples_is_an_error(root):
    cut(root, *range(6))
    with pytest.raises(BrokenSampleError, match='6 samples in a row are broken'):
        build(root)[0]


def test_settings_are_checked(root):
    with pytest.raises(ValueError, match="on_error='ignore': allowed are 'raise' and 'skip'"):
        build(root, 'ignore')
    with pytest.raises(ValueError, match='an evaluation must see each image once'):
        build(root, test_mode=True)
    assert build(root, lazy_init=True).skipped_samples() == build(root, 'raise').skipped_samples() == {}


@TRANSFORMS.register_module()
class BrokenTransform(BaseTransform):
    def transform(self, results):
        raise KeyError('a mistake in the code')


def test_a_mistake_in_the_code_is_no_broken_file(root):
    dataset = build(root, pipeline=[*DATA.train_pipeline[:3], dict(type='BrokenTransform')])
    with pytest.raises(KeyError, match='a mistake in the code'):
        dataset[0]
    assert dataset.skipped_samples() == {}


def test_evaluation_names_broken_files_too(root):
    image = next((root / 'images/validation').iterdir())
    label = root / f'annotations/validation/{image.stem}.png'
    for pipeline in (DATA.test_pipeline, DATA.tta_pipeline):
        for path, content, words in ((label, b'text', 'is no image that pillow can decode'), (label, b'', 'is empty'),
                                     (image, image.read_bytes()[:-9], '.*truncated')):
            before = path.read_bytes()
            path.write_bytes(content)
            dataset = build(root, 'raise', pipeline, 'val')
            with pytest.raises(BrokenSampleError, match=f'{path.name}: {words}'):
                [dataset[index] for index in range(len(dataset))]
            path.write_bytes(before)
        assert dataset[0]


def test_a_pipeline_without_labels_needs_none(root):
    shutil.rmtree(root / 'annotations/training')
    (root / 'annotations/training').mkdir()
    assert build(root, 'raise', [dict(type='LoadImageFromFile')])[0]['img'].ndim == 3


@pytest.mark.slow
def test_training_goes_on_and_says_at_the_end_what_was_skipped(root, tmp_path):
    cut(root, 0, 3)
    assert DATA.train_dataloader.num_workers == 2 and DATA.train_dataloader.persistent_workers
    text = run_tool('tools/train.py', TOY, '--work-dir', tmp_path / 'work', '--cfg-options', f'data_root={root}',
                    'train_dataloader.dataset.on_error=skip', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                    'default_hooks.checkpoint.interval=2').stdout
    log, = (tmp_path / 'work').rglob('*.log')
    assert log.read_text().count('skipped: ') == text.count('skipped: ') <= 5  # each file by each worker, and the last
    last = text[text.index('skipped: 2 broken samples, replaced'):].splitlines()[0]
    assert f'{STEM}0.jpg (' in last and f'{STEM}3.jpg (' in last and 'times)' in last
    assert f'WARNING - skipped: {root}/images/training/{STEM}0.jpg: ' in text


def test_nothing_skipped_is_nothing_said(root, monkeypatch):
    monkeypatch.setattr(hooks, 'print_log', lambda text, **options: pytest.fail(text))
    SkippedSamplesHook().after_train(SimpleNamespace(train_dataloader=DataLoader(build(root))))


@pytest.mark.parametrize('error', [BrokenSampleError, LabelError])
def test_errors_keep_their_sentence_through_a_traceback(error):
    text = f'Caught {error.__name__} in worker 0.\nTraceback ...\nmodule.{error.__name__}: a.png: bad: very\n'
    assert str(error(text)) == 'a.png: bad: very' and str(error('a.png: bad')) == 'a.png: bad'
    assert issubclass(error, SampleError)


@pytest.mark.slow
def test_the_command_line_ends_with_the_sentence(root, tmp_path):
    label = root / f'annotations/training/{STEM}0.png'
    with Image.open(label) as image:
        array = np.array(image)
    array[0, 0] = 200
    Image.fromarray(array).save(label)
    result = run_tool('tools/train.py', TOY, '--work-dir', tmp_path / 'work', '--cfg-options', f'data_root={root}',
                      check=False)
    last = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 1 and 'Traceback' not in result.stdout
    assert last.startswith(f'{label}: the label values 199 (1 pixels) are out of range: allowed are 0 to 149')
