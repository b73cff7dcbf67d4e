import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmseg_inceptionnext.engine import BatchSizeHook
from mmseg_inceptionnext.engine.hooks import WholeCheckpointHook


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


def test_a_resumed_checkpoint_names_no_file_elsewhere(tmp_path):
    """MMEngine removes the best checkpoint so far when there is a better one, wherever that is said to be."""
    home = tmp_path / 'work'
    home.mkdir()
    inside = str(home / 'best_mIoU_iter_1.pth')
    info = dict(best_ckpt=inside, best_ckpt_mIoU=str(tmp_path / 'precious'), last_ckpt=str(home / '../precious'),
                keep_ckpt_ids=['../precious'], best_score=1.)
    checkpoint = dict(state_dict=torch.nn.Linear(1, 1).state_dict(), message_hub=dict(runtime_info=info))
    runner = SimpleNamespace(_load_from=None, _resume=True, model=torch.nn.Linear(1, 1), work_dir=str(home),
                             logger=MMLogger.get_instance('test_hooks'))
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)
    assert info == dict(best_ckpt=inside, best_score=1.)
