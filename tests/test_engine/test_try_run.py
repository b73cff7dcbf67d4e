"""A step of training and one of validation are tried before a training: what they tell, and that nothing changes."""
import copy
import random
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATA_SAMPLERS, HOOKS, METRICS
from PIL import Image

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.engine.batch import match_batch
from mmseg_inceptionnext.engine.check import TryRunHook
from mmseg_inceptionnext.engine.check.explain import in_a_line
from mmseg_inceptionnext.errors import ConfigError

from utils import short_config

CHANNELS = dict(in_channels=[16, 24, 32, 48], in_index=[0, 1, 2, 3], channels=16, num_classes=150, dropout_ratio=0.,
                norm_cfg=dict(type='BN'))
LAST = dict(CHANNELS, in_channels=48, in_index=3)
CONCAT = dict(CHANNELS, input_transform='resize_concat')
STOCK = dict(
    upper=dict(CHANNELS, type='UPerHead', pool_scales=(1, 2)),
    fast_upper=dict(CHANNELS, type='FastUPerHead', pool_scales=(1, 2)),
    psp=dict(LAST, type='PSPHead', pool_scales=(1, 2)),
    aspp=dict(LAST, type='ASPPHead', dilations=(1, 2)),
    separable=dict(LAST, type='DepthwiseSeparableASPPHead', dilations=(1, 2), c1_in_channels=16, c1_channels=8),
    fcn=dict(CONCAT, type='FCNHead', num_convs=1, kernel_size=1),
    segformer=dict(CHANNELS, type='SegformerHead'),
    setr=dict(LAST, type='SETRUPHead', num_convs=1, kernel_size=3, up_scale=4),
    cascade=[dict(CONCAT, type='FCNHead', num_convs=1), dict(CONCAT, type='OCRHead', ocr_channels=8)])
WITH_POOLS = ('upper', 'fast_upper', 'psp', 'aspp')


class Stopped(Exception):
    pass


@HOOKS.register_module()
class FirstIteration(Hook):
    """Keeps what a run holds when its first iteration begins, and ends the run after it."""
    seen = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = {key: value.clone() for key, value in runner.model.state_dict().items()}
        FirstIteration.seen = dict(model=model, states=(random.random(), np.random.rand(), torch.rand(3).tolist()),
                                   training=runner.model.training,
                                   results=[len(metric.results) for metric in runner.val_evaluator.metrics])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise Stopped


def first_iteration(cfg):
    FirstIteration.seen = None
    with pytest.raises(Stopped):
        train(cfg)
    return FirstIteration.seen


def config(toy_root, tmp_path, head=None, **options):
    cfg = short_config(toy_root, tmp_path, custom_hooks=[dict(type='FirstIteration')], randomness=dict(seed=3))
    if head is not None:
        del cfg.model['neck']
        cfg.model.decode_head = copy.deepcopy(head)
        if isinstance(head, list):
            cfg.model.update(type='CascadeEncoderDecoder', num_stages=2)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize('name', [
    name if name == 'fast_upper' else pytest.param(name, marks=pytest.mark.slow) for name in STOCK])
def test_what_works_is_not_refused(name, toy_root, tmp_path):
    assert first_iteration(config(toy_root, tmp_path, STOCK[name], **{'train_dataloader.batch_size': 2}))


def test_nothing_changes(toy_root, tmp_path, monkeypatch):
    tried = []
    original = TryRunHook.before_train
    monkeypatch.setattr(TryRunHook, 'before_train', lambda self, runner: tried.append(original(self, runner)))
    with_try = first_iteration(config(toy_root, tmp_path / 'a'))
    assert len(tried) == 1
    monkeypatch.setattr(TryRunHook, 'before_train', lambda self, runner: None)
    without = first_iteration(config(toy_root, tmp_path / 'b'))
    assert with_try['states'] == without['states'] and with_try['training'] and with_try['results'] == [0]
    assert with_try['model'].keys() == without['model'].keys()
    assert all(torch.equal(value, without['model'][key]) for key, value in with_try['model'].items())


@pytest.mark.slow
def test_a_wrong_number_of_channels_is_told(toy_root, tmp_path):
    for name, change, told in (
            ('aspp', dict(in_channels=32), r'model.decode_head.in_channels is 32, .*in_index=3 have 48 channels'),
            ('upper', dict(in_channels=[16, 24, 32, 32]), r'in_channels is \[16, 24, 32, 32\], .*\[16, 24, 32, 48\]'),
            ('fcn', dict(in_channels=[16, 24, 32, 32]), r'in_channels is 104, .* have 120 channels')):
        cfg = config(toy_root, tmp_path, dict(STOCK[name], **change))
        with pytest.raises(ConfigError, match=told):
            train(cfg)
    cfg = config(toy_root, tmp_path)
    cfg.model.auxiliary_head = [dict(LAST, type='FCNHead', in_channels=16, in_index=1)]
    with pytest.raises(ConfigError, match=r'model.auxiliary_head.0.in_channels is 16, .*in_index=1 have 64 channels'):
        train(cfg)


@pytest.mark.parametrize('name', [
    name if name == 'fast_upper' else pytest.param(name, marks=pytest.mark.slow) for name in WITH_POOLS])
def test_one_image_and_maps_of_one_pixel(name, toy_root, tmp_path):
    with pytest.raises(ConfigError, match=r'batch_size is 1 .*pools it to one pixel.*batch_size=2 or more; or a norm'):
        train(config(toy_root, tmp_path, STOCK[name], **{'train_dataloader.batch_size': 1}))


@pytest.mark.slow
@pytest.mark.parametrize('name', WITH_POOLS[2:])
def test_one_image_is_enough_for_other_norms_and_heads(name, toy_root, tmp_path):
    batch = {'train_dataloader.batch_size': 1}
    norm = dict(type='GN', num_groups=2)
    assert first_iteration(config(toy_root, tmp_path / 'norm', dict(STOCK[name], norm_cfg=norm), **batch))
    assert first_iteration(config(toy_root, tmp_path / 'head', STOCK['segformer'], **batch))


def epochs(cfg, **loader):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    cfg.train_dataloader.update(sampler=dict(type='DefaultSampler', shuffle=True), **loader)
    return cfg


@pytest.mark.slow
def test_a_last_batch_of_one_image(toy_root, tmp_path):
    """The toy data are 6 images."""
    cfg = config(toy_root, tmp_path, STOCK['psp'])
    with pytest.raises(ConfigError, match=r'the last batch of each epoch is 1 image.*batch_size=5.*drop_last=True'):
        train(epochs(cfg, batch_size=5))
    assert first_iteration(epochs(cfg, batch_size=5, drop_last=True))
    epochs(cfg, batch_size=5, drop_last=False).train_dataloader.sampler = None
    with pytest.raises(ConfigError, match=r'the last batch of each epoch is 1 image'):
        train(cfg)
    assert first_iteration(epochs(cfg, batch_size=4, drop_last=False))


def test_match_batch_advises_no_single_images(toy_root, tmp_path):
    cfg = config(toy_root, tmp_path, **{'train_dataloader.batch_size': 5, 'auto_scale_lr.base_batch_size': 6})
    with pytest.raises(ConfigError, match=r'batch_size=6 or another of 2, 3, 6'):
        match_batch(cfg)


@DATA_SAMPLERS.register_module()
class Endless(DefaultSampler):

    def __iter__(self):
        while True:
            yield from super().__iter__()


@pytest.mark.slow
def test_a_sampler_that_hides_that_it_never_ends(toy_root, trained, tmp_path):
    cfg = epochs(config(toy_root, tmp_path, **{'custom_hooks': []}), batch_size=3)
    cfg.train_dataloader.sampler.type = 'Endless'
    cfg.train_cfg.max_epochs = 1
    with pytest.raises(ConfigError, match=r'train_dataloader gives more than the 2 batches .*DefaultSampler'):
        train(cfg)
    cfg = short_config(toy_root, tmp_path, max_iters=1, val_interval=1)
    cfg.val_dataloader.sampler.type = 'Endless'
    with pytest.raises(ConfigError, match=r'val_dataloader gives more than the 3 batches .*DefaultSampler'):
        train(cfg)
    cfg = short_config(toy_root, tmp_path, few_channels=False)
    cfg.test_dataloader.sampler.type = 'Endless'
    with pytest.raises(ConfigError, match=r'test_dataloader gives more than the 3 batches .*DefaultSampler'):
        evaluate(cfg, str(trained / 'iter_2.pth'))


def test_a_training_without_labels(toy_root, tmp_path):
    cfg = config(toy_root, tmp_path)
    steps = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [step for step in steps if step.type not in (
        'LoadAnnotations', 'CheckLabels')]
    cfg.train_dataloader.dataset.pipeline[2].pop('cat_max_ratio')
    with pytest.raises(ConfigError, match=r"train_dataloader.dataset has no label: add dict\(type='LoadAnnotations'\)"):
        train(cfg)


@pytest.fixture
def mixed_root(toy_root, tmp_path):
    """The toy data, of whose validation images the last is smaller."""
    root = tmp_path / 'mixed'
    shutil.copytree(toy_root, root)
    for folder in ('images', 'annotations'):
        path = sorted((root / folder / 'validation').iterdir())[-1]
        image = Image.open(path)
        image.crop((0, 0, image.width, image.height // 2)).save(path)
    return root


@pytest.mark.slow
def test_a_validation_of_images_of_several_sizes(mixed_root, tmp_path):
    told = r'different sizes.*val_dataloader.batch_size=1'
    with pytest.raises(ConfigError, match=told):
        train(config(mixed_root, tmp_path / 'first', **{'val_dataloader.batch_size': 3}))
    cfg = short_config(mixed_root, tmp_path / 'later', max_iters=1, val_interval=1)
    cfg.val_dataloader.batch_size = 2
    names = sorted(path.stem for path in (mixed_root / 'images/validation').iterdir())
    (tmp_path / 'names.txt').write_text('\n'.join([names[0], names[1], names[0], names[2]]))
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'names.txt')
    with pytest.raises(ConfigError, match=told):
        train(cfg)
    assert (tmp_path / 'later/iter_1.pth').exists()


@pytest.mark.slow
def test_an_evaluation_of_images_of_several_sizes(mixed_root, trained, tmp_path):
    cfg = short_config(mixed_root, tmp_path, few_channels=False)
    cfg.test_dataloader.batch_size = 3
    with pytest.raises(ConfigError, match=r'different sizes.*test_dataloader.batch_size=1'):
        evaluate(cfg, str(trained / 'iter_2.pth'))


@METRICS.register_module()
class Spoilt(IoUMetric):

    def process(self, data_batch, data_samples):
        raise KeyError('depth')


def test_a_metric_that_fails_is_told_before_the_first_iteration(toy_root, tmp_path):
    with pytest.raises(ConfigError, match=r"one step of validation .*KeyError: 'depth' \(.*test_try_run.py, line"):
        train(config(toy_root, tmp_path, **{
            'val_evaluator.type': 'Spoilt', 'default_hooks.checkpoint.save_best': None}))


def test_the_line_of_the_users_own_code_is_told():
    with pytest.raises(RuntimeError) as raised:
        torch.nn.functional.softmax(torch.ones(3, dtype=torch.long), 0)
    line = in_a_line(raised.value)
    place = r'\(functional.py, line \d+, called in .*test_try_run.py, line \d+\)$'
    assert re.search(rf'^(NotImplemented|Runtime)Error: .* {place}', line)
    worker = RuntimeError('Caught KeyError in DataLoader worker process 0.\nTraceback (most recent call last):\n'
                          f'  File "/home/me/street.py", line 7, in __call__\n  File "{np.__file__}", line 9, in f\n'
                          "KeyError: 'depth'")
    assert in_a_line(worker) == "KeyError: 'depth' (__init__.py, line 9, called in /home/me/street.py, line 7)"


def test_a_fault_of_ours_keeps_its_traceback(toy_root, tmp_path, monkeypatch):
    source = 'def fail(self, *args, **kwargs):\n    return {}["ours"]'
    space = {}
    exec(compile(source, TryRunHook.__init__.__code__.co_filename, 'exec'), space)
    monkeypatch.setattr('mmseg_inceptionnext.evaluation.ExactIoUMetric.process', space['fail'])
    with pytest.raises(KeyError, match='ours'):
        train(config(toy_root, tmp_path))


@pytest.mark.slow
def test_what_is_doubtful_is_told(toy_root, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('mmseg_inceptionnext.engine.check.settings.print_log', lambda line, **_: lines.append(line))
    cfg = config(toy_root, tmp_path)
    cfg.train_dataloader.dataset.pipeline[4].crop_size = (64, 64)
    cfg.param_scheduler[0].by_epoch = True
    cfg.val_dataloader.dataset.pipeline.insert(1, dict(type='Normalize', mean=[1.0] * 3, std=[1.0] * 3))
    cfg.update(val_evaluator=[], default_hooks=dict(checkpoint=dict(save_best=None)))
    first_iteration(cfg)
    assert len(lines) == 4
    assert 'val_dataloader.dataset.pipeline.1 is Normalize, and model.data_preprocessor subtracts a mean' in lines[0]
    assert 'val_evaluator is [], so nothing is measured' in lines[1]
    assert 'crop_size is (64, 64), and the crops are padded to model.data_preprocessor.size, (128, 128)' in lines[2]
    assert 'param_scheduler.0 counts epochs' in lines[3]
