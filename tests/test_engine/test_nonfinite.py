"""Losses and weights that are not finite: what stays as it was, what is written down, and when a run stops."""
import json
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmseg.registry import HOOKS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.checkpoints.files import checkpoints_in
from mmseg_inceptionnext.engine import AutocastOptimWrapper, NonFiniteLossHook, check_autocast, nonfinite
from mmseg_inceptionnext.engine.nonfinite import watched
from mmseg_inceptionnext.engine.optim import leaves_out_steps
from mmseg_inceptionnext.errors import ConfigError, NonFiniteLossError
from mmseg_inceptionnext.models import MemoryEfficientEncoderDecoder

from utils import content, fused_or_skip, short_config


def poisoned(monkeypatch, iterations, value=float('nan'), gradients=True):
    """The model's loss is not finite in some iterations, counted from 0.

    Also its BatchNorms see infinite maps, and so do its gradients, or only the loss is not finite and nothing else.
    """
    count, loss = iter(range(10**6)), MemoryEfficientEncoderDecoder.loss

    def poisoned_loss(self, inputs, samples):
        bad = next(count) in iterations
        losses = loss(self, inputs * value if bad and gradients else inputs, samples)
        if bad and not gradients:
            losses['decode.loss_ce'] = losses['decode.loss_ce'] + value
        return losses

    monkeypatch.setattr(MemoryEfficientEncoderDecoder, 'loss', poisoned_loss)


def dtype_or_skip(amp):
    """What autocast takes, where this PyTorch can train in it."""
    dtype = dict(fp16=torch.float16, bf16=torch.bfloat16).get(amp, torch.float32)
    try:
        check_autocast(get_device(), dtype)
    except ConfigError as error:
        pytest.skip(str(error))
    return dtype


def config(toy_root, work_dir, fused=False, amp=None, **options):
    """A short run whose optimizer is fused or not, with a precision that is to be had here or a skip."""
    dtype_or_skip(amp)
    cfg = short_config(toy_root, work_dir, **options)
    cfg.train_dataloader.batch_size = 2
    cfg.optim_wrapper.optimizer.fused = fused
    if fused:
        fused_or_skip()
    if amp == 'fp16':
        cfg.optim_wrapper.loss_scale = 64.  # under which no step of the toy overflows
    return cfg


def assert_same_optimizer(a, b, steps):
    assert len(a['state']) == len(b['state']) > 100
    for key, state in a['state'].items():
        assert state['step'] == steps
        assert all(torch.equal(b['state'][key][name], value) for name, value in state.items())


@pytest.mark.parametrize('amp,fused,gradients', [
    (None, True, False), ('bf16', False, True), ('fp16', True, False),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (None, False, True), (None, True, True), ('bf16', True, False), ('fp16', False, True),
        ('fp16', False, False)))])
def test_a_loss_that_is_not_finite_changes_nothing(toy_root, tmp_path, monkeypatch, amp, fused, gradients):
    poisoned(monkeypatch, {1, 2}, float('nan' if gradients else 'inf'), gradients)
    train(config(toy_root, tmp_path, fused, amp, max_iters=4, val_interval=10), amp=amp)
    before, after, end = (content(tmp_path / f'iter_{i}.pth') for i in (1, 3, 4))
    assert_same_optimizer(before['optimizer'], after['optimizer'], steps=1)
    before, after, end = before['state_dict'], after['state_dict'], end['state_dict']
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(torch.isfinite(value).all() for value in end.values())
    assert sum(not torch.equal(end[key], value) for key, value in after.items()) > 200
    report = json.loads((tmp_path / 'nonfinite_iter_2_rank0.json').read_text())
    loss = 'nan' if gradients else 'inf'
    assert report['iter'] == 2 and report['loss_terms']['decode.loss_ce'] == loss and len(report['files']) == 2
    assert all(os.path.isfile(path) for path in report['files'])
    assert json.loads((tmp_path / 'nonfinite_iter_3_rank0.json').read_text())['iter'] == 3


@pytest.mark.slow
@pytest.mark.parametrize('amp,fused', [(None, True), ('fp16', True), ('fp16', False)])
def test_the_first_step_of_all_may_be_left_out(toy_root, tmp_path, monkeypatch, amp, fused):
    """Before which an optimizer has no state yet."""
    poisoned(monkeypatch, {0})
    train(config(toy_root, tmp_path, fused, amp, max_iters=2, val_interval=10), amp=amp)
    first = content(tmp_path / 'iter_1.pth')
    assert all(state['step'] == 0 and not state['exp_avg'].any() for state in first['optimizer']['state'].values())
    assert all(torch.isfinite(value).all() for value in first['state_dict'].values())
    end = content(tmp_path / 'iter_2.pth')
    assert all(state['step'] == 1 and torch.isfinite(state['exp_avg']).all()
               for state in end['optimizer']['state'].values())
    assert all(torch.isfinite(value).all() for value in end['state_dict'].values())


@pytest.mark.slow
@pytest.mark.parametrize('amp,fused', [(None, False), (None, True), ('fp16', False)])
def test_a_loss_that_is_not_finite_elsewhere_changes_nothing_here(toy_root, tmp_path, monkeypatch, amp, fused):
    """On another process; what is wrong is written down there."""
    count = iter(range(10**6))
    monkeypatch.setattr(nonfinite, 'all_reduce', lambda flag, op: flag.fill_(1) if next(count) == 1 else flag)
    train(config(toy_root, tmp_path, fused, amp, max_iters=3, val_interval=10), amp=amp)
    before, after, end = (content(tmp_path / f'iter_{i}.pth') for i in (1, 2, 3))
    assert_same_optimizer(before['optimizer'], after['optimizer'], steps=1)
    assert all(torch.equal(after['state_dict'][key], value) for key, value in before['state_dict'].items())
    assert all(state['step'] == 2 for state in end['optimizer']['state'].values())
    assert not list(tmp_path.glob('nonfinite*'))


class Reads(TorchDispatchMode):
    """Counts how often the host reads a number, for which it would wait on a GPU."""
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func).startswith(('aten._local_scalar_dense', 'aten.nonzero', 'aten.is_nonzero'))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('amp', [None, 'bf16', 'fp16'])
def test_the_host_does_not_wait_for_the_loss(amp):
    """So that it has filled a GPU's queue with the whole step before it looks."""
    fused_or_skip()
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).to(get_device())
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    wrapper = watched(OptimWrapper)(optimizer)
    if amp:
        wrapper = watched(AutocastOptimWrapper)(optimizer=optimizer, dtype=dtype_or_skip(amp), loss_scale=64)
    runner, hook = SimpleNamespace(model=model, optim_wrapper=wrapper), NonFiniteLossHook()
    hook.before_train(runner)
    for factor in (1., float('nan'), 1.):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        with Reads() as reads:
            hook.before_train_iter(runner, 0)
            with wrapper.optim_context(model):
                loss = model(torch.randn(2, 4, device=get_device())).float().square().sum() * factor
            wrapper.update_params(loss)
        assert reads.count == 0 and not hasattr(optimizer, 'found_inf')
        same = [torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before)]
        assert all(same) if factor != 1 else not any(same[:1])
    with Reads() as reads:
        bool(loss)
    assert reads.count == 1


def test_what_fused_sgd_would_do_to_its_momentum_is_not_relied_on():
    """It moves on, or is left at random, in a step that is left out."""
    parameter = nn.Parameter(torch.ones(3))
    for make in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = make([parameter], lr=0.1)
        assert not leaves_out_steps(optimizer)
        optimizer.param_groups[0]['fused'] = True
        assert leaves_out_steps(optimizer) == (make is torch.optim.AdamW)


@pytest.mark.parametrize('settings', [{}, dict(clip_grad=dict(max_norm=1, error_if_nonfinite=True))])
@pytest.mark.parametrize('kind,fused', [
    (torch.optim.AdamW, True), (torch.optim.AdamW, False), (torch.optim.SGD, False)])
def test_accumulated_steps_are_left_out_if_a_loss_of_theirs_is(kind, fused, settings):
    """Gradients of the others in the step are given up with it, so that processes do not differ."""
    if fused:
        fused_or_skip()
    model = nn.Linear(2, 1).to(get_device())
    options = dict(fused=True) if fused else {}  # PyTorch 2.1 has no fused SGD
    wrapper = watched(OptimWrapper)(kind(model.parameters(), lr=0.1, **options), accumulative_counts=2, **settings)
    wrapper.initialize_count_status(model, 0, 100)
    changed = []
    for factor in (1, 1, 1, float('nan'), float('inf'), 1, 1, 1):
        before = model.weight.clone()
        wrapper.update_params(model(torch.ones(1, 2, device=get_device())).sum() * factor)
        changed.append(not torch.equal(before, model.weight))
        assert bool(wrapper.lost) == (factor != 1) and torch.isfinite(model.weight).all()
    assert changed == [False, True, False, False, False, False, False, True]


def test_three_in_a_row_stop_the_run(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1, 3, 4, 5, 6}, value=float('inf'))
    with pytest.raises(NonFiniteLossError) as error:
        train(short_config(toy_root, tmp_path, max_iters=9, val_interval=10))
    for words in ('3 iterations in a row, up to 6', 'loss=nan', 'nonfinite_iter_N', '--amp bf16', '--resume'):
        assert words in str(error.value), error.value
    assert len(list(tmp_path.glob('nonfinite*.json'))) == 4


@HOOKS.register_module()
class PoisonWeights(Hook):
    """A weight becomes NaN in the step of an iteration, counted from 0, whose loss was finite."""
    priority = 'VERY_HIGH'

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == self.at:
            weight = next(runner.model.parameters()).data
            weight[(0, ) * weight.dim()] = float('nan')


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


def test_steps_that_mixed_precision_leaves_out_do_not_count():
    """Gradients overflow under a finite loss, then losses are NaN."""
    model = torch.nn.Linear(2, 1).to(get_device())
    wrapper = watched(AutocastOptimWrapper)(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1), dtype=dtype_or_skip('fp16'),
        loss_scale=dict(init_scale=2.**120))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, iter=0, work_dir=os.devnull, logger=None)
    hook, seen = NonFiniteLossHook(patience=10), []
    hook.before_train(runner)
    hook._report = lambda *args: None  # there is no work dir
    for factor in (1e9, 1, float('nan'), float('inf'), 1):
        before = model.weight.clone()
        hook.before_train_iter(runner, 0)
        wrapper.update_params(model(torch.ones(1, 2, device=get_device())).sum() * factor)
        hook.after_train_iter(runner, 0)
        seen.append((hook.in_a_row, not torch.equal(before, model.weight)))
        if wrapper.loss_scaler.get_scale() == 2.**119:
            wrapper.loss_scaler.update(1.)
    assert seen == [(0, False), (0, True), (1, False), (2, False), (0, True)] and torch.isfinite(model.weight).all()


@pytest.mark.slow
def test_averaged_weights_stay_finite_too(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1})
    train(short_config(toy_root, tmp_path, custom_hooks=[dict(type='EMAHook', momentum=0.1)]))
    for name in ('iter_2.pth', 'iter_3.pth'):
        checkpoint = content(tmp_path / name)
        for state in (checkpoint['state_dict'], checkpoint['ema_state_dict']):
            assert all(torch.isfinite(value).all() for value in state.values())


def test_patience_is_a_setting(toy_root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {0})
    with pytest.raises(NonFiniteLossError, match='1 iterations in a row'):
        train(short_config(toy_root, tmp_path, max_iters=2, custom_hooks=[dict(type='NonFiniteLossHook', patience=1)]))
