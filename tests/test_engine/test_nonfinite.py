"""Losses and weights that are not finite: what stays as it was, what is written down, and when a run stops."""
import json
import os
import zipfile
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmseg.registry import HOOKS

from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.engine import NonFiniteLossError, NonFiniteLossHook
from mmseg_inceptionnext.engine.atomic import checkpoints_in
from mmseg_inceptionnext.models import MemoryEfficientEncoderDecoder

from utils import content, short_config


def poisoned(monkeypatch, iterations, value=float('nan')):
    """The model's loss is not finite in some iterations, counted from 0; also its BatchNorms see infinite maps."""
    count, loss = iter(range(10**6)), MemoryEfficientEncoderDecoder.loss

    def poisoned_loss(self, inputs, samples):
        bad = next(count) in iterations
        losses = loss(self, inputs * value if bad else inputs, samples)
        return losses

    monkeypatch.setattr(MemoryEfficientEncoderDecoder, 'loss', poisoned_loss)


def test_a_loss_that_is_not_finite_changes_nothing(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1, 2})
    train(short_config(toy_root, tmp_path, max_iters=4, val_interval=10))
    before, after = (content(tmp_path / f'iter_{i}.pth')['state_dict'] for i in (1, 3))
    assert all(torch.equal(after[key], value) for key, value in before.items())
    end = content(tmp_path / 'iter_4.pth')['state_dict']
    assert all(torch.isfinite(value).all() for value in end.values())
    assert any(not torch.equal(end[key], value) for key, value in after.items())
    report = json.loads((tmp_path / 'nonfinite_iter_2_rank0.json').read_text())
    assert report['iter'] == 2 and report['loss_terms']['decode.loss_ce'] == 'nan' and len(report['files']) == 6
    assert all(os.path.isfile(path) for path in report['files'])
    kept = content(tmp_path / 'nonfinite_iter_2.pth')['state_dict']
    assert all(torch.equal(kept[key], value) for key, value in before.items())
    assert json.loads((tmp_path / 'nonfinite_iter_3_rank0.json').read_text())['iter'] == 3


def test_three_in_a_row_stop_the_run(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1, 3, 4, 5, 6}, value=float('inf'))
    with pytest.raises(NonFiniteLossError) as error:
        train(short_config(toy_root, tmp_path, max_iters=9, val_interval=10))
    for words in ('3 iterations in a row, up to 6', 'loss=nan', 'nonfinite_iter_4.pth', '--amp bf16', '--resume'):
        assert words in str(error.value), error.value
    assert [path.name for path in tmp_path.glob('nonfinite*.pth')] == ['nonfinite_iter_4.pth']  # not one for each
    assert zipfile.ZipFile(tmp_path / 'nonfinite_iter_4.pth').testzip() is None


@HOOKS.register_module()
class PoisonWeights(Hook):
    """A weight becomes NaN in the step of an iteration, counted from 0, whose loss was finite."""
    priority = 'VERY_HIGH'

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == self.at:
            next(runner.model.parameters()).data.view(-1)[0] = float('nan')


def test_no_checkpoint_takes_weights_that_are_not_finite(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path, custom_hooks=[dict(type='PoisonWeights', at=1)])
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    with pytest.raises(NonFiniteLossError, match='not finite after iteration 2: .* checkpoint was not written'):
        train(cfg)
    assert checkpoints_in(str(tmp_path)) == [str(tmp_path / 'iter_1.pth')]
    train(short_config(toy_root, tmp_path), resume=True)
    assert (tmp_path / 'iter_3.pth').is_file()


def test_weights_that_are_not_finite_stop_the_run_at_once(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path, max_iters=9, custom_hooks=[dict(type='PoisonWeights', at=1)])
    cfg.default_hooks.checkpoint.interval = 100
    with pytest.raises(NonFiniteLossError, match='not finite before iteration 3: .* newest checkpoint'):
        train(cfg)
    assert [path.name for path in tmp_path.glob('nonfinite*')] == ['nonfinite_iter_3_rank0.json']


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='this PyTorch scales losses on GPUs only')
def test_steps_that_mixed_precision_leaves_out_do_not_count():
    """Gradients overflow under a finite loss, then a loss is NaN in all batches of a step, or in some."""
    model, scaler = torch.nn.Linear(2, 1), torch.amp.GradScaler('cpu', init_scale=2.**120)

    class Scaled(OptimWrapper):
        def backward(self, loss, **kwargs):
            scaler.scale(loss).backward()
            self._inner_count += 1

        def step(self, **kwargs):
            scaler.step(self.optimizer)
            scaler.update()

    wrapper = Scaled(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 100)
    runner, hook = SimpleNamespace(model=model, optim_wrapper=wrapper), NonFiniteLossHook(patience=10)
    hook.before_train(runner)
    changed = []
    for factor in (1e9, 1e9, float('nan'), float('nan'), 1e-3, float('nan'), 1e-3, 1e-3):
        before = model.weight.clone()
        hook.before_train_iter(runner, 0)
        wrapper.update_params(model(torch.ones(1, 2)).sum() * factor)
        hook._left_out or hook.after_train_iter(runner, 0)
        changed.append(not torch.equal(before, model.weight))
        assert hook.in_a_row == 0 and torch.isfinite(model.weight).all()
    assert scaler.get_scale() == 2.**119  # the first step overflowed
    assert changed == [False] * 5 + [True, False, True]


def test_averaged_weights_stay_finite_too(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1})
    train(short_config(toy_root, tmp_path, custom_hooks=[dict(type='EMAHook', momentum=0.1)]))
    for name in ('nonfinite_iter_2.pth', 'iter_2.pth', 'iter_3.pth'):
        checkpoint = content(tmp_path / name)
        for state in (checkpoint['state_dict'], checkpoint['ema_state_dict']):
            assert all(torch.isfinite(value).all() for value in state.values())


def test_patience_is_a_setting(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {0})
    with pytest.raises(NonFiniteLossError, match='1 iterations in a row'):
        train(short_config(toy_root, tmp_path, max_iters=2, custom_hooks=[dict(type='NonFiniteLossHook', patience=1)]))
