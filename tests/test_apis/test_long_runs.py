"""Runs that are stopped, lose their disk, or have fewer devices than the recipe."""
import errno
import json
import os
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.visualization import LocalVisBackend
from mmseg.registry import HOOKS

from mmseg_inceptionnext.apis import seeds_table, train, train_seeds
from mmseg_inceptionnext.checkpoints import choose_checkpoint, files
from mmseg_inceptionnext.checkpoints.files import checkpoints_in, find_damage
from mmseg_inceptionnext.datasets import ADEChallengeDataset
from mmseg_inceptionnext.engine import build_runner
from mmseg_inceptionnext.errors import CheckpointError, ConfigError
from mmseg_inceptionnext.evaluation import ExactIoUMetric

from utils import content, short_config


@pytest.fixture(autouse=True)
def any_algorithm():
    yield
    torch.use_deterministic_algorithms(False)


def assert_same(a, b):
    """Two checkpoints have the same weights and the same optimizer, bit for bit."""
    a, b = content(a), content(b)
    assert a['state_dict'].keys() == b['state_dict'].keys() and len(a['optimizer']['state']) > 50
    assert all(torch.equal(value, b['state_dict'][key]) for key, value in a['state_dict'].items())
    for key, state in a['optimizer']['state'].items():
        assert all(torch.equal(value, b['optimizer']['state'][key][name]) for name, value in state.items())
    assert a['optimizer']['param_groups'] == b['optimizer']['param_groups']


def with_randomness(toy_root, work_dir, workers=0):
    cfg = short_config(toy_root, work_dir, max_iters=5, val_interval=2)
    cfg.model.backbone.drop_path_rate = 0.5
    cfg.train_dataloader.update(batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    return cfg


@pytest.fixture(scope='module')
def straight(toy_root, tmp_path_factory):
    """Five iterations without a stop, with a validation between."""
    cfg = with_randomness(toy_root, tmp_path_factory.mktemp('straight'))
    cfg.randomness = dict(seed=5)
    train(cfg, deterministic=True)
    return Path(cfg.work_dir)


@pytest.mark.parametrize('workers,stop', [
    *(pytest.param(0, stop, marks=pytest.mark.slow) for stop in (1, 2)), (2, 3)])
def test_a_resumed_run_ends_bit_for_bit_the_same(straight, toy_root, tmp_path, monkeypatch, workers, stop):
    shutil.copy(straight / f'iter_{stop}.pth', tmp_path)
    (tmp_path / 'iter_4.pth').write_bytes((straight / 'iter_4.pth').read_bytes()[:-1000])  # cut off
    loaded, load = [], ADEChallengeDataset.prepare_data
    monkeypatch.setattr(ADEChallengeDataset, 'prepare_data', lambda self, idx: loaded.append(idx) or load(self, idx))
    cfg = with_randomness(toy_root, tmp_path, workers)
    cfg.randomness = dict(seed=5)
    train(cfg, resume=True, deterministic=True)
    assert_same(tmp_path / 'iter_5.pth', straight / 'iter_5.pth')
    if workers == 0:
        drawn = [index for index in loaded if hasattr(index, 'seed')]
        assert len(drawn) == 2 * (5 - stop)  # no sample is loaded again


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_joined_and_repeated_data_resume_bit_for_bit_too(toy_root, tmp_path, workers):
    def run(name, **options):
        cfg = with_randomness(toy_root, tmp_path / name, workers)
        data = dict(cfg.train_dataloader.dataset)
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[
            dict(data, indices=3), dict(type='RepeatDataset', dataset=dict(data, indices=2), times=2)])
        cfg.merge_from_dict({'randomness': dict(seed=5), 'train_cfg.max_iters': 4})
        train(cfg, deterministic=True, **options)

    run('straight')
    os.mkdir(tmp_path / 'resumed')
    shutil.copy(tmp_path / 'straight/iter_2.pth', tmp_path / 'resumed')
    run('resumed', resume=True)
    assert_same(tmp_path / 'straight/iter_4.pth', tmp_path / 'resumed/iter_4.pth')
    assert 'augmentations differ' not in next((tmp_path / 'resumed').glob('*/*.log')).read_text()


@pytest.mark.slow
def test_data_that_take_no_seeds_are_said(toy_root, tmp_path, straight):
    shutil.copy(straight / 'iter_4.pth', tmp_path)
    cfg = with_randomness(toy_root, tmp_path)
    cfg.train_dataloader.dataset.type = 'ADE20KDataset'
    train(cfg, resume=True, deterministic=True)
    assert 'train_dataloader.dataset.type ADE20KDataset the augmentations differ' in next(
        tmp_path.glob('*/*.log')).read_text()


@pytest.mark.slow
def test_another_batch_is_said_and_other_steps_are_refused(toy_root, tmp_path, straight):
    shutil.copy(straight / 'iter_4.pth', tmp_path)
    cfg = with_randomness(toy_root, tmp_path)
    cfg.train_dataloader.batch_size = 3
    with pytest.raises(ConfigError, match='1 batches of 2 images to a step, and this one has 2 of 3, .* with 2 images '
                                          'in all processes together, .* and without --match-batch'):
        train(cfg, resume=True, accumulate=True)
    assert checkpoints_in(str(tmp_path)) == [str(tmp_path / 'iter_4.pth')]
    cfg = with_randomness(toy_root, tmp_path)
    cfg.train_dataloader.batch_size = 3
    train(cfg, resume=True)
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'resume: the checkpoint was trained with 2 images an iteration, this run has 3' in log


@pytest.mark.slow
def test_a_run_without_a_seed_resumes_with_its_own(toy_root, tmp_path, straight):
    shutil.copy(straight / 'iter_3.pth', tmp_path)
    train(with_randomness(toy_root, tmp_path), resume=True, deterministic=True)
    assert_same(tmp_path / 'iter_5.pth', straight / 'iter_5.pth')


def test_resuming_nothing_is_said(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(files, 'print_log', lambda line, **kwargs: lines.append(line))
    assert choose_checkpoint(str(tmp_path)) is None
    assert lines == [f'resume: there is no checkpoint in {tmp_path} yet, so training starts from the beginning']


@HOOKS.register_module()
class FillDisk(Hook):
    """From an iteration on no file may grow beyond 100 kB."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(toy_root, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    cfg = short_config(toy_root, tmp_path, max_iters=3, custom_hooks=[dict(type='FillDisk', at=2)])
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best=None)
    try:
        with pytest.raises(CheckpointError) as error:
            train(cfg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 'iter_3.pth could not be written' in str(error.value) and 'iter_2.pth is complete' in str(error.value)
    path, = checkpoints_in(str(tmp_path))
    assert path.endswith('iter_2.pth') and not find_damage(path) and not list(tmp_path.glob('.*'))
    assert (tmp_path / 'last_checkpoint').read_text() == path
    (tmp_path / '.iter_3.pth.tmp').write_bytes(b'of a run that was killed')
    cfg = short_config(toy_root, tmp_path, max_iters=3)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1)
    train(cfg, resume=True)
    assert [os.path.basename(path) for path in checkpoints_in(str(tmp_path))] == ['iter_3.pth']
    assert not list(tmp_path.glob('.*.tmp'))


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_log_is_explained_too(toy_root, tmp_path, monkeypatch):
    def fail(self, scalars, step, *args):
        if step == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalVisBackend, 'add_scalars', fail)
    with pytest.raises(CheckpointError, match=f'a file in {tmp_path} could not be written: No space left on device. '
                                              'Make room. .*iter_1.pth is complete, and --resume'):
        train(short_config(toy_root, tmp_path))


@pytest.mark.slow
def test_the_best_checkpoint_is_removed_after_the_better_one_is_there(toy_root, tmp_path, monkeypatch):
    cfg = short_config(toy_root, tmp_path, max_iters=2, val_interval=1)
    existing, write = [], files.write_atomically

    def watch(data, path):
        existing.append((os.path.basename(path), sorted(p.name for p in tmp_path.glob('best*.pth'))))
        write(data, path)

    monkeypatch.setattr(files, 'write_atomically', watch)
    scores = iter([10., 20.])
    monkeypatch.setattr(ExactIoUMetric, 'compute_metrics', lambda self, results: dict(mIoU=next(scores)))
    train(cfg)
    assert ('best_mIoU_iter_2.pth', ['best_mIoU_iter_1.pth']) in existing
    assert [p.name for p in tmp_path.glob('best*.pth')] == ['best_mIoU_iter_2.pth']


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of every step of the optimizer."""
    found, step = [], OptimWrapper.step

    def recorded(self, **kwargs):
        found.append(self.get_lr()['lr'][0])
        step(self, **kwargs)

    monkeypatch.setattr(OptimWrapper, 'step', recorded)
    return found


def with_schedule(toy_root, work_dir, batch_size):
    cfg = short_config(toy_root, work_dir, max_iters=6, val_interval=100)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
                           dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=3, end=6)]
    cfg.train_dataloader.batch_size = batch_size
    cfg.default_hooks.checkpoint.interval = 100
    return cfg


@pytest.mark.slow
def test_matched_batches_have_the_recipes_rates(toy_root, tmp_path, rates):
    train(with_schedule(toy_root, tmp_path / 'recipe', 6))
    recipe = rates.copy()
    assert len(recipe) == 6 and len(set(recipe)) == 5
    rates.clear()
    train(with_schedule(toy_root, tmp_path / 'matched', 2), accumulate=True)
    assert rates == recipe
    rates.clear()
    train(with_schedule(toy_root, tmp_path / 'scaled', 2), auto_scale_lr=True)
    assert rates == pytest.approx([rate / 3 for rate in recipe])


def test_two_ways_to_the_batch_exclude_each_other(toy_root, tmp_path):
    with pytest.raises(ConfigError, match='give one of them'):
        train(short_config(toy_root, tmp_path), auto_scale_lr=True, accumulate=True)


@pytest.mark.slow
def test_runs_of_one_process_log_to_folders_of_their_own(toy_root, tmp_path, monkeypatch):
    """Also those that begin in the same second, by which MMEngine names them."""
    monkeypatch.setattr(time, 'time', lambda: 1.5e9)
    for name in ('first', 'second'):
        runner = build_runner(short_config(toy_root, tmp_path / name))
        runner.visualizer.add_scalar('x', 1., 1)
        assert list((tmp_path / name).rglob('scalars.json'))
        shutil.rmtree(tmp_path / name)


@pytest.mark.slow
def test_seeds_in_turn(toy_root, tmp_path):
    results = train_seeds(short_config(toy_root, tmp_path, max_iters=1, val_interval=1), [4, 7])
    assert list(results) == [4, 7] and results[4] != results[7]
    for seed, metrics in results.items():
        assert content(tmp_path / f'seed_{seed}' / 'iter_1.pth')['meta']['seed'] == seed and 0 <= metrics['mIoU'] <= 100
        scalars, = (tmp_path / f'seed_{seed}').rglob('scalars.json')
        lines = map(json.loads, scalars.read_text().splitlines())
        assert [line['mIoU'] for line in lines if 'mIoU' in line] == [metrics['mIoU']]
    text = seeds_table({1: dict(mIoU=40., mAcc=50., aAcc=60.), 2: dict(mIoU=44., mAcc=50., aAcc=60.)})
    assert [line.split()[1::2] for line in text.splitlines() if ' sd ' in line] == [['sd', '2.83', '0.00', '0.00']]
    assert [line.split()[3] for line in text.splitlines() if ' mean ' in line] == ['42.00']
    text = seeds_table({1: dict(mIoU=float('nan')), 2: dict(mIoU=44.)})
    assert [line.split()[1::2] for line in text.splitlines() if ' sd ' in line] == [['sd', 'nan']]
    assert seeds_table({1: {}, 2: {}}).startswith('no run was validated')
