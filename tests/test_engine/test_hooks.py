import copy
import logging
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.optim import ConstantLR, OptimWrapper, PolyLR

from mmseg_inceptionnext.engine import BatchSizeHook
from mmseg_inceptionnext.engine.hooks import WholeCheckpointHook
from mmseg_inceptionnext.errors import CheckpointError


def line_of(recipe, batch_size, world_size=1, accumulated=1, norm=torch.nn.BatchNorm2d):
    logger = MMLogger.get_instance('test_hooks', log_level='INFO')
    runner = SimpleNamespace(
        cfg=Config(dict(auto_scale_lr=recipe) if recipe else {}), logger=logger, world_size=world_size,
        train_dataloader=SimpleNamespace(batch_size=batch_size), model=torch.nn.Sequential(norm(1)),
        optim_wrapper=SimpleNamespace(_accumulative_counts=accumulated))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    BatchSizeHook().before_train(runner)
    logger.removeHandler(handler)
    return [(record.levelname, record.getMessage()) for record in records]


@pytest.mark.parametrize('batch_size,world_size,accumulated', [(2, 8, 1), (16, 1, 1), (2, 1, 8)])
def test_the_recipes_batch_is_information(batch_size, world_size, accumulated):
    (level, text), = line_of(dict(base_batch_size=16), batch_size, world_size, accumulated)
    assert level == 'INFO' and text.startswith('batch: the recipe has 16, this run has 16 ')


def test_accumulated_steps_say_what_batch_norm_sees():
    for norm, images in ((torch.nn.BatchNorm2d, 2), (torch.nn.SyncBatchNorm, 8)):
        (_, text), = line_of(dict(base_batch_size=16), 2, world_size=4, accumulated=2, norm=norm)
        assert f'(4 processes x 2 images x 2 accumulated steps; BatchNorm sees {images} images at once)' in text


def test_another_batch_is_a_warning_that_says_what_to_do():
    (level, text), = line_of(dict(base_batch_size=16, enable=False), 2)
    assert level == 'WARNING'
    assert 'the recipe has 16, this run has 2 (1 process x 2 images)' in text
    assert '--match-batch' in text and '--auto-scale-lr' in text


def test_a_scaled_learning_rate_is_said():
    (level, text), = line_of(dict(base_batch_size=16, enable=True), 2, world_size=2)
    assert level == 'WARNING' and 'this run has 4 (2 processes x 2 images)' in text and 'scaled by 0.25' in text


def test_scaling_beside_accumulation_is_a_warning():
    (level, text), = line_of(dict(base_batch_size=6, enable=True), 2, accumulated=3)
    assert level == 'WARNING' and 'this run has 6' in text and 'scaled by 0.333333' in text


def test_a_config_without_a_recipe_says_nothing():
    assert line_of(None, 2) == []


@pytest.fixture
def resuming(tmp_path):
    """A run of a small model, and a checkpoint of it, after a step."""
    model = torch.nn.Linear(2, 1)
    trained, optimizer = (torch.optim.AdamW(model.parameters(), lr=0.1) for _ in range(2))
    runner = SimpleNamespace(
        _resume=True, model=model, work_dir=str(tmp_path), logger=MMLogger.get_instance('test_hooks'),
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
    ('message_hub.log_scalars', {5: HistoryBuffer([1], [1])}, 'message_hub has the key 5, not a text'),
    ('message_hub.log_scalars', {'val/a': 7}, 'message_hub.log_scalars.val/a is no history of numbers'),
    ('message_hub.log_scalars', {'val/a': HistoryBuffer()}, 'message_hub.log_scalars.val/a is no history of numbers'),
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
        WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)


def test_what_a_run_goes_on_from(resuming):
    """Also of another schedule, and of the optimizer of another version."""
    runner, checkpoint = resuming
    for place, value in (('meta.iter', 10**6), ('meta.seed', None), ('param_schedulers.0.step', 'x'),
                         ('param_schedulers.1.factor', None), ('optimizer.param_groups.0.foreach', None),
                         ('optimizer.state.0', None)):
        change(checkpoint, place, value)
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)
    assert 'step' not in checkpoint['param_schedulers'][0]
    runner.param_schedulers = None
    del checkpoint['param_schedulers']
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize('kept', [['../precious'], {'a': 1}, 5])
def test_a_resumed_checkpoint_names_no_file_elsewhere(resuming, kept):
    """MMEngine removes the best checkpoint so far when there is a better one, wherever that is said to be."""
    runner, checkpoint = resuming
    home = runner.work_dir = f'{runner.work_dir}/work'
    inside = f'{home}/best_mIoU_iter_1.pth'
    info = dict(best_ckpt=inside, best_ckpt_mIoU=f'{home}/../precious', last_ckpt='/precious', best_ckpt_a=5,
                keep_ckpt_ids=kept, best_score=1.)
    checkpoint['message_hub']['runtime_info'] = info
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)
    assert info == dict(best_ckpt=inside, best_score=1.)
