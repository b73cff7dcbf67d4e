"""Training, evaluation and inference from Python: what is resumed, what is refused, what is equal to stock."""
import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from PIL import Image

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.apis.evaluation import _apply_options
from mmseg_inceptionnext.engine.check import check_save_best
from mmseg_inceptionnext.errors import ConfigError, LabelError
from mmseg_inceptionnext.evaluation import ExactIoUMetric

from utils import short_config


@pytest.fixture(scope='module')
def trained(toy_root, tmp_path_factory):
    """Two iterations on drawn scenes: the work dir."""
    work_dir = tmp_path_factory.mktemp('work')
    cfg = short_config(toy_root, work_dir)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    train(cfg)
    return work_dir


@HOOKS.register_module()
class StateRecorder(Hook):
    """Keeps what a run holds before its first iteration."""
    seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.seen:
            self.seen.append(copy.deepcopy(dict(
                iter=runner.iter, optimizer=runner.optim_wrapper.state_dict(),
                schedulers=[scheduler.state_dict() for scheduler in runner.param_schedulers],
                message_hub=runner.message_hub.state_dict(), model=runner.model.state_dict())))


def test_resuming_restores_everything_under_safe_reading(trained, toy_root, tmp_path):
    shutil.copy(trained / 'iter_2.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    StateRecorder.seen.clear()
    cfg = short_config(toy_root, tmp_path, custom_hooks=[dict(type='StateRecorder')])
    train(cfg, resume=True)
    seen, = StateRecorder.seen
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert seen['iter'] == saved['meta']['iter'] == 2
    assert len(seen['optimizer']['state']) == len(saved['optimizer']['state']) > 100
    for key, state in saved['optimizer']['state'].items():
        assert all(torch.equal(seen['optimizer']['state'][key][name].cpu(), value) for name, value in state.items())
        assert state['step'] == 2
    assert sum(bool(state['exp_avg'].any()) for state in saved['optimizer']['state'].values()) > 100
    assert all(torch.equal(value, seen['model'][key].cpu()) for key, value in saved['state_dict'].items())
    assert seen['schedulers'] == saved['param_schedulers'] and seen['schedulers'][0]['last_step'] == 2
    losses = saved['message_hub']['log_scalars']['train/loss']
    assert len(losses.data[0]) == 2
    np.testing.assert_array_equal(seen['message_hub']['log_scalars']['train/loss'].data[0], losses.data[0])
    assert (tmp_path / 'iter_3.pth').is_file()


def confusion_of(cfg, checkpoint, **options):
    """An evaluation's confusion matrix; some of the predictions are right."""
    assert evaluate(cfg, checkpoint, **options)['mIoU'] > 1
    return np.load(Path(cfg.work_dir) / 'confusion.npy')


def assert_same_predictions(confusion, expected):
    """But for one pixel in 10,000, where rounding decides between two classes."""
    assert confusion.sum() == expected.sum() and abs(confusion - expected).sum() <= 2e-4 * expected.sum()


@pytest.mark.slow
def test_stock_weights_evaluate_to_the_same(toy_root, tmp_path):
    """Trained in MMSegmentation's own class; evaluated in it, in ours, fused, and with views, whole and sliding."""
    stock = {'model.type': 'EncoderDecoder'}
    cfg = short_config(toy_root, tmp_path / 'train', param_scheduler=[], randomness=dict(seed=0), **stock)
    cfg.train_cfg.update(max_iters=25, val_interval=25)
    cfg.default_hooks.checkpoint.interval = 25
    train(cfg)
    checkpoint = str(tmp_path / 'train/iter_25.pth')
    slide = {'model.test_cfg': dict(mode='slide', crop_size=(160, 160), stride=(112, 112))}
    for options in ({}, slide):
        expected = confusion_of(short_config(toy_root, tmp_path / 'a', **stock, **options), checkpoint)
        for fused in (False, True):
            cfg = short_config(toy_root, tmp_path / 'b', **options)
            assert_same_predictions(confusion_of(cfg, checkpoint, fuse_model=fused), expected)
        by_views = []
        for views in ({**stock, 'tta_model.type': 'SegTTAModel'}, {}):
            cfg = short_config(toy_root, tmp_path / 'c', **options, **views)
            by_views.append(confusion_of(cfg, checkpoint, protocol='ms'))
        assert_same_predictions(*by_views)


@pytest.mark.slow
def test_averaged_weights_are_evaluated_fused_too(toy_root, tmp_path):
    """EMAHook exchanges parameters before an evaluation, and a fused model has others."""
    ema = dict(param_scheduler=[], randomness=dict(seed=0), custom_hooks=[dict(type='EMAHook', momentum=0.2)])
    cfg = short_config(toy_root, tmp_path / 'train', **ema)
    cfg.train_cfg.update(max_iters=25, val_interval=25)
    cfg.default_hooks.checkpoint.interval = 25
    train(cfg)
    checkpoint = str(tmp_path / 'train/iter_25.pth')
    expected = confusion_of(short_config(toy_root, tmp_path / 'a', **ema), checkpoint)
    fused = confusion_of(short_config(toy_root, tmp_path / 'b', **ema), checkpoint, fuse_model=True)
    assert_same_predictions(fused, expected)


def test_a_config_that_says_resume_goes_on(toy_root, tmp_path):
    train(short_config(toy_root, tmp_path, max_iters=1, val_interval=9))
    written = (tmp_path / 'iter_1.pth').stat().st_mtime_ns
    cfg = short_config(toy_root, tmp_path, max_iters=2, val_interval=9)
    cfg.resume = True
    train(cfg)
    assert (tmp_path / 'iter_1.pth').stat().st_mtime_ns == written and (tmp_path / 'iter_2.pth').is_file()


def test_averaging_goes_on_where_it_was_when_training_resumes(toy_root, tmp_path):
    """In a checkpoint of EMAHook ``state_dict`` is the average, ``ema_state_dict`` what is trained."""
    options = dict(param_scheduler=[], custom_hooks=[dict(type='EMAHook', momentum=0.3), dict(type='StateRecorder')])
    cfg = short_config(toy_root, tmp_path, **options)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    train(cfg)
    StateRecorder.seen.clear()
    train(short_config(toy_root, tmp_path, **options), resume=True)
    before, after = (torch.load(tmp_path / f'iter_{i}.pth', weights_only=False) for i in (2, 3))
    seen, = StateRecorder.seen
    names = [key[len('module.'):] for key in before['ema_state_dict'] if key.endswith(('weight', 'bias', 'gamma'))]
    assert len(names) > 200 and seen['iter'] == 2
    for name in names:
        average, trained = before['state_dict'][name], before['ema_state_dict'][f'module.{name}']
        assert torch.equal(seen['model'][name].cpu(), trained)
        now = after['ema_state_dict'][f'module.{name}']
        torch.testing.assert_close(after['state_dict'][name], 0.7 * average + 0.3 * now)
    assert sum(not torch.equal(before['state_dict'][name], before['ema_state_dict'][f'module.{name}'])
               for name in names) > 100
    assert after['ema_state_dict']['steps'] == before['ema_state_dict']['steps'] + 1


NAMES = ['door, screen; "wood"/gloss ', *(f'class {i}' for i in range(1, 150))]


@pytest.mark.slow
def test_the_best_checkpoint_by_one_class(toy_root, tmp_path):
    """Its name holds what file names and MMEngine's rules ('loss') may stumble over; the log line stays short."""
    cfg = short_config(toy_root, tmp_path, param_scheduler=[], **{'visualizer.name': str(tmp_path)})
    images = {'img_path': 'images/validation', 'seg_map_path': 'annotations/validation'}
    sky = 2  # which the scenes do hold
    names = [*NAMES[1:sky + 1], NAMES[0], *NAMES[sky + 1:]]
    cfg.val_dataloader.dataset.update(
        type='BaseSegDataset', data_prefix=images, metainfo=dict(classes=names), reduce_zero_label=True)
    cfg.train_cfg.update(max_iters=2, val_interval=1)
    cfg.default_hooks.checkpoint.save_best = ['IoU/door,screen;"wood"/gloss', 'mIoU']  # --cfg-options drops spaces
    train(cfg)
    best = {path.name for path in tmp_path.glob('best_*')}
    of_class, = (name for name in best if name.startswith('best_IoU_door, screen; "wood"_gloss _iter_'))
    assert len(best) == 2
    log = next(tmp_path.glob('*/*.log')).read_text()
    scalars = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    curve = {line['step']: line[f'IoU/{NAMES[0]}'] for line in scalars if f'IoU/{NAMES[0]}' in line}
    assert of_class.endswith(f'iter_{max(curve, key=curve.get)}.pth') and list(curve) == [1, 2]
    assert 'NaN' not in next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    lines = [line for line in log.splitlines() if 'Iter(val) [3/3]' in line and 'mIoU: ' in line]
    assert len(lines) == 2 and all(len(line) < 250 and 'IoU/' not in line for line in lines)
    message_hub = torch.load(tmp_path / of_class, weights_only=False)['message_hub']
    assert not [name for name in message_hub['log_scalars'] if 'IoU/' in name]
    train(short_config(toy_root, tmp_path, param_scheduler=[]), resume=True)  # safe reading takes what was kept
    assert (tmp_path / 'iter_3.pth').is_file()


@pytest.mark.parametrize('key,words', [
    ('IoU/rode', "no class 'rode'; near to it are 'road'"), ('Acc/12345', "no class '12345'; near to it are 'wall'")])
def test_a_best_class_that_is_none_is_refused_at_the_start(toy_root, tmp_path, key, words):
    cfg = short_config(toy_root, tmp_path)
    cfg.default_hooks.checkpoint.save_best = key
    with pytest.raises(ConfigError, match=words):
        train(cfg)


@pytest.mark.parametrize('key', ['mDice', 'mIuO', 'Dice/road', 'aAcc/road', 'road'])
def test_a_best_metric_that_is_not_measured_is_refused_at_the_start(toy_root, tmp_path, key):
    cfg = short_config(toy_root, tmp_path)
    cfg.default_hooks.checkpoint.save_best = ['mIoU', key]
    with pytest.raises(ConfigError, match=f"save_best='{key}' is not measured: val_evaluator gives aAcc, mIoU, mAcc, "
                                          'and each but aAcc of a class, such as IoU/wall; more by .* mIoU, mDice'):
        cfg.val_evaluator.iou_metrics = ['mIoU']
        train(cfg)


def test_a_best_metric_that_is_no_number_is_said(toy_root, tmp_path, monkeypatch):
    monkeypatch.setattr(ExactIoUMetric, 'compute_metrics', lambda self, results: dict(mIoU=float('nan')))
    train(short_config(toy_root, tmp_path, max_iters=1, val_interval=1))
    assert not list(tmp_path.glob('best*'))
    assert "save_best='mIoU': no number at iteration 1" in next(tmp_path.glob('*/*.log')).read_text()


def test_a_head_for_other_classes_than_the_data_have_is_refused_at_the_start(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path)
    cfg.model.decode_head.num_classes = 5
    with pytest.raises(ConfigError, match='model.decode_head.num_classes is 5, but the dataset names 150 classes'):
        train(cfg)


def test_an_evaluation_skips_nothing(trained, toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path)
    cfg.test_dataloader.dataset.on_error = cfg.val_dataloader.dataset.on_error = 'skip'
    with pytest.raises(ConfigError, match="val_dataloader.dataset.on_error is 'skip', which is for training"):
        train(cfg)
    with pytest.raises(ConfigError, match="test_dataloader.dataset.on_error is 'skip', which is for training"):
        evaluate(cfg, str(trained / 'iter_2.pth'))


def test_what_the_data_ignore_and_the_loss_does_not_is_refused_at_the_start(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path)
    cfg.train_dataloader.dataset.ignore_index = 199
    with pytest.raises(ConfigError, match='model.decode_head.ignore_index is 255, but train_dataloader.dataset.ignore'):
        train(cfg)


def test_labels_that_are_no_classes_are_named(trained, toy_root, tmp_path):
    shutil.copytree(toy_root, tmp_path / 'data')
    path = tmp_path / 'data/annotations/validation/toy_validation_00001.png'
    label = np.array(Image.open(path))
    label[0, :5] = 151
    Image.fromarray(label).save(path)
    with pytest.raises(LabelError, match=r'toy_validation_00001.png: .* 150 .* allowed are 0 to 149'):
        evaluate(short_config(tmp_path / 'data', tmp_path / 'work'), str(trained / 'iter_2.pth'))


def test_a_metric_that_writes_no_predictions_may_stand_beside_one_that_does(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path)
    cfg.test_evaluator = [cfg.test_evaluator, dict(type='mmengine.DumpResults', out_file_path=f'{tmp_path}/all.pkl')]
    _apply_options(cfg, str(tmp_path / 'out'), None)
    assert [metric.get('output_dir') for metric in cfg.test_evaluator] == [str(tmp_path / 'out'), None]


def test_what_a_foreign_metric_measures_is_left_to_mmengine(toy_root, tmp_path):
    """Its dataset may be one that joins others, and says nothing of classes before it is built."""
    cfg = short_config(toy_root, tmp_path, **{'val_evaluator.type': 'IoUMetric'})
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset])
    check_save_best(cfg)
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
