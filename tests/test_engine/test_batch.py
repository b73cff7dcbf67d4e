"""The recipe's batch: what is said of it, and that accumulated gradients take its steps at its learning rates."""
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmseg_inceptionnext.engine import BatchSizeHook, match_batch
from mmseg_inceptionnext.errors import ConfigError


def recipe(batch_size=2, base=16, **kwargs):
    return Config(dict(
        auto_scale_lr=dict(base_batch_size=base) if base else {}, train_dataloader=dict(batch_size=batch_size),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=100, val_interval=10),
        optim_wrapper=dict(type='OptimWrapper'),
        default_hooks=dict(checkpoint=dict(interval=20), logger=dict(interval=5), param_scheduler=dict(type='X')),
        custom_hooks=[dict(type='BatchSizeHook'), dict(type='EMAHook', begin_iter=3)], **kwargs))


def test_what_counts_iterations_grows():
    cfg = recipe()
    assert match_batch(cfg) == 8 and cfg.optim_wrapper.accumulative_counts == 8
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (800, 80)
    assert (cfg.default_hooks.checkpoint.interval, cfg.default_hooks.logger.interval) == (160, 40)
    assert cfg.default_hooks.param_scheduler.type == 'AccumulatedParamSchedulerHook'
    assert cfg.custom_hooks[1] == dict(type='EMAHook', begin_iter=24, interval=8)


def test_what_is_not_given_and_what_changes_on_the_way_grows_too():
    cfg = recipe(batch_size=8)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=100, val_begin=30, dynamic_intervals=[(50, 5), (80, 2)])
    cfg.default_hooks.checkpoint.save_begin = 40
    match_batch(cfg)
    assert cfg.train_cfg.val_interval == 2000  # MMEngine's default is 1000
    assert cfg.train_cfg.val_begin == 60 and cfg.train_cfg.dynamic_intervals == [(100, 10), (160, 4)]
    assert cfg.default_hooks.checkpoint.save_begin == 80


def test_the_recipes_batch_is_left_alone():
    cfg = recipe(batch_size=16)
    before = cfg.pretty_text
    assert match_batch(cfg) == 1 and cfg.pretty_text == before


def test_processes_count(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    assert match_batch(recipe(launcher='pytorch')) == 2 and match_batch(recipe(launcher='none')) == 8


@pytest.mark.parametrize('cfg,words', [
    (recipe(batch_size=3), ['batch of 16', '3 images', '(1 x 3)', 'batch_size=16', 'of 2, 4, 8, 16']),
    (recipe(batch_size=32), ['no multiple of the 32']),
    (recipe(base=None), ['base_batch_size=16']),
    (Config(dict(recipe(), train_cfg=dict(type='EpochBasedTrainLoop'))), ['EpochBasedTrainLoop']),
])
def test_what_does_not_fit_is_said(cfg, words):
    with pytest.raises(ConfigError) as error:
        match_batch(cfg)
    assert all(word in str(error.value) for word in words), error.value


def test_too_many_processes(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '32')
    with pytest.raises(ConfigError, match='use fewer processes'):
        match_batch(recipe(launcher='pytorch'))


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
