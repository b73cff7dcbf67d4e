"""Samples and their randomness are those of the place in the run; and what no run can go on from."""
import copy
import itertools
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, InfiniteSampler, RepeatDataset
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.optim import ConstantLR, OptimWrapper, PolyLR

from mmseg_inceptionnext.datasets.seeding import Draw, derived_seed
from mmseg_inceptionnext.engine import ResumableSampler
from mmseg_inceptionnext.engine.hooks import CompleteCheckpointHook
from mmseg_inceptionnext.errors import CheckpointError


def first(sampler, count):
    return list(itertools.islice(sampler, count))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('shuffle', [True, False])
def test_the_order_is_mmengines_from_any_place_on(deterministic, shuffle):
    data = range(7)
    expected = first(InfiniteSampler(data, shuffle=shuffle, seed=3), 30)
    sampler = ResumableSampler(data, shuffle=shuffle, seed=3)
    draws = first(sampler, 30)
    assert draws == expected and first(sampler, 30) == expected  # a second iteration starts anew
    sampler.skip(11)
    resumed = first(sampler, 19)
    assert resumed == expected[11:] and [draw.seed for draw in resumed] == [draw.seed for draw in draws[11:]]


def test_without_deterministic_algorithms_there_are_no_seeds():
    sampler, expected = ResumableSampler(range(7), seed=3), first(InfiniteSampler(range(7), seed=3), 30)
    sampler.skip(11)
    assert first(sampler, 19) == expected[11:] and {type(index) for index in first(sampler, 19)} == {int}


def test_every_draw_has_a_seed_of_its_own(deterministic):
    seeds = set()
    for rank in (0, 1):
        for seed in (0, 1):
            sampler = ResumableSampler(range(5), seed=seed)
            sampler.rank, sampler.world_size = rank, 2
            seeds |= {draw.seed for draw in first(sampler, 50)}
    assert len(seeds) == 200


def test_draws_reach_worker_processes():
    draw = pickle.loads(pickle.dumps(Draw(5, 77)))
    assert (draw, draw.seed, [0, 1, 2, 3, 4, 'here'][draw]) == (5, 77, 'here')


def test_draws_keep_their_seeds_in_datasets_that_join_and_repeat():
    class Data(BaseDataset):
        METAINFO = dict(classes=('a', ))

        def load_data_list(self):
            return [dict(index=i) for i in range(3)]

        def __getitem__(self, index):
            return int(index), index.seed

    for data in (RepeatDataset(Data(), times=2), ConcatDataset([Data(), Data()])):
        assert [data[Draw(i, 70 + i)] for i in range(6)] == [(i % 3, 70 + i) for i in range(6)]


def test_each_number_changes_the_seed():
    assert len({derived_seed(*numbers) for numbers in itertools.product(range(4), repeat=3)}) == 64


@pytest.fixture
def resuming(tmp_path):
    """A run of a small model, and a checkpoint of it, after a step."""
    model = torch.nn.Linear(2, 1)
    trained, optimizer = (torch.optim.AdamW(model.parameters(), lr=0.1) for _ in range(2))
    runner = SimpleNamespace(
        cfg=dict(resume=True), model=model, work_dir=str(tmp_path), logger=MMLogger.get_instance('test_hooks'),
        optim_wrapper=OptimWrapper(optimizer), param_schedulers=[PolyLR(optimizer, end=9), ConstantLR(optimizer)])
    model(torch.ones(1, 2)).sum().backward()
    trained.step()
    hub = dict(log_scalars={'val/mIoU': HistoryBuffer([1], [1])}, runtime_info={}, resumed_keys={})
    return runner, copy.deepcopy(dict(
        state_dict=model.state_dict(), meta=dict(epoch=0, iter=1, seed=0), message_hub=hub,
        optimizer=trained.state_dict(), param_schedulers=[it.state_dict() for it in runner.param_schedulers]))


def change(checkpoint, place, value):
    """Sets what is at a place such as ``meta.iter``; takes it out if ``value`` is None."""
    *folders, key = [int(part) if part.isdecimal() else part for part in place.split('.')]
    for folder in folders:
        checkpoint = checkpoint[folder]
    if value is None:
        del checkpoint[key]
    else:
        checkpoint[key] = value


@pytest.mark.parametrize('place,value,words', [
    ('meta', None, 'it has no meta'),
    ('meta', [1], 'meta is list of 1, not dict'),
    ('meta.iter', None, 'meta.iter is None, not a whole number from 0'),
    ('meta.iter', -1, 'meta.iter is -1, not a whole number'),
    ('meta.iter', 10**12, 'meta.iter is 1000000000000, not a whole number from 0 to 1000000000'),
    ('meta.iter', '2', "meta.iter is '2', not a whole number"),
    ('meta.epoch', 0.5, 'meta.epoch is 0.5, not a whole number'),
    ('meta.seed', 'x', "meta.seed is 'x', not a whole number from 0 to 4294967295"),
    ('meta.seed', 2**32, 'meta.seed is 4294967296, not a whole number'),
    ('message_hub', None, 'it has no message_hub'),
    ('message_hub.runtime_info', 3, 'message_hub.runtime_info is 3, not dict'),
    ('message_hub.runtime_info', dict(best_score='x'), "message_hub.runtime_info.best_score is 'x', not a number"),
    ('message_hub.runtime_info', dict(accumulated_batches='1'), "accumulated_batches is '1', not a number"),
    ('optimizer', None, 'it has no optimizer'),
    ('optimizer', [1], 'optimizer is list of 1, not dict'),
    ('optimizer.param_groups', [], 'optimizer.param_groups is list of 0, not a list of 1'),
    ('optimizer.param_groups.0', 5, 'optimizer.param_groups.0 is 5, not dict'),
    ('optimizer.param_groups.0.params', [0], 'optimizer.param_groups.0.params is list of 1, not a list of 2'),
    ('optimizer.param_groups.0.lr', 'x', "optimizer.param_groups.0.lr is 'x', not a number"),
    ('optimizer.param_groups.0.betas', (1, 'x'), "optimizer.param_groups.0.betas.1 is 'x', not a number"),
    ('optimizer.param_groups.0.amsgrad', True, 'optimizer.state.0.max_exp_avg_sq is None, not numbers of shape (1, 2)'),
    ('optimizer.state.0.exp_avg', 'x', "optimizer.state.0.exp_avg is 'x', not numbers of shape (1, 2)"),
    ('optimizer.state.1.exp_avg', torch.zeros(3), 'optimizer.state.1.exp_avg is Tensor, not numbers of shape (1,)'),
    ('optimizer.state.1.step', None, 'optimizer.state.1.step is None, not numbers of shape ()'),
    ('param_schedulers', None, 'it has no param_schedulers'),
    ('param_schedulers', {}, 'param_schedulers is dict, not a list of 2'),
    ('param_schedulers.1', None, 'param_schedulers is list of 1, not a list of 2'),
    ('param_schedulers.0', 'x', "param_schedulers.0 is 'x', not dict"),
    ('param_schedulers.0.last_step', 'x', "param_schedulers.0.last_step is 'x', not a number"),
    ('param_schedulers.0.base_values', [], 'param_schedulers.0.base_values is list of 0, not a list of 1'),
])
def test_what_no_run_can_go_on_from_is_named(resuming, place, value, words):
    runner, checkpoint = resuming
    change(checkpoint, place, value)
    with pytest.raises(CheckpointError, match=f'the checkpoint cannot be resumed from: .*{re.escape(words)}'):
        CompleteCheckpointHook().after_load_checkpoint(runner, checkpoint)


def test_what_a_run_goes_on_from(resuming):
    """Also of another schedule, and of the optimizer of another version."""
    runner, checkpoint = resuming
    for place, value in (('meta.iter', 10**6), ('meta.seed', None), ('param_schedulers.0.step', 'x'),
                         ('param_schedulers.1.factor', None), ('optimizer.param_groups.0.foreach', None),
                         ('optimizer.state.0', None)):
        change(checkpoint, place, value)
    CompleteCheckpointHook().after_load_checkpoint(runner, checkpoint)
    assert 'step' not in checkpoint['param_schedulers'][0]
    runner.param_schedulers = None
    del checkpoint['param_schedulers']
    CompleteCheckpointHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize('kept', [['../precious'], {'a': 1}, 5])
def test_a_resumed_checkpoint_names_no_file_elsewhere(resuming, kept):
    """MMEngine removes the best checkpoint so far when there is a better one, wherever that is said to be."""
    runner, checkpoint = resuming
    home = runner.work_dir = f'{runner.work_dir}/work'
    inside = f'{home}/best_mIoU_iter_1.pth'
    info = dict(best_ckpt=inside, best_ckpt_mIoU=f'{home}/../precious', last_ckpt='/precious', best_ckpt_a=5,
                keep_ckpt_ids=kept, best_score=1.)
    checkpoint['message_hub']['runtime_info'] = info
    CompleteCheckpointHook().after_load_checkpoint(runner, checkpoint)
    assert info == dict(best_ckpt=inside, best_score=1.)
