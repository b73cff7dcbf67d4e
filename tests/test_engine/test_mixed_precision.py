"""Training in half the bits: what is cast and what is not, what is scaled, and what checkpoints hold."""
import copy

import pytest
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmseg.registry import HOOKS

from mmseg_inceptionnext.apis import run, train
from mmseg_inceptionnext.engine import AutocastOptimWrapper, check_autocast, mixed_precision
from mmseg_inceptionnext.errors import ConfigError

from utils import content, short_config

DTYPES = dict(fp16=torch.float16, bf16=torch.bfloat16)


def needs(*precisions):
    """Skips where this PyTorch cannot train in one of them; None is float32."""
    for name in filter(None, precisions):
        try:
            check_autocast(get_device(), DTYPES[name])
        except ConfigError as error:
            pytest.skip(str(error))


def dtype_of_products(device):
    return torch.mm(torch.ones(1, 1, device=device), torch.ones(1, 1, device=device)).dtype


@HOOKS.register_module()
class DtypeRecorder(Hook):
    """Keeps the dtypes of a convolution's maps in training, and in which products would be made in its backward."""
    forward, backward = set(), set()

    def before_train(self, runner):
        self.forward.clear(), self.backward.clear()

        def record(module, args, output):
            if module.training:
                self.forward.add(output.dtype)
                output.register_hook(lambda gradient: self.backward.add(dtype_of_products(gradient.device)))

        next(module for module in runner.model.modules() if isinstance(module, torch.nn.Conv2d)).register_forward_hook(
            record)


def config(toy_root, work_dir, max_iters=2, **options):
    cfg = short_config(toy_root, work_dir, max_iters, **options)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='DtypeRecorder')]
    cfg.train_dataloader.batch_size = 2
    return cfg


@pytest.mark.parametrize('amp', [pytest.param('fp16', marks=pytest.mark.slow), 'bf16'])
def test_training_resumes(toy_root, tmp_path, amp):
    needs(amp)
    for iterations in (2, 3):
        train(config(toy_root, tmp_path, iterations), resume=True, amp=amp)
        assert DtypeRecorder.forward == {DTYPES[amp]} and DtypeRecorder.backward == {torch.float32}
    checkpoint = content(tmp_path / 'iter_3.pth')
    losses, _ = checkpoint['message_hub']['log_scalars']['train/loss'].data
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
    assert {value.dtype for value in checkpoint['state_dict'].values()} == {torch.float32, torch.int64}
    assert ('loss_scaler' in checkpoint['optimizer']) == (amp == 'fp16')


@pytest.mark.slow
@pytest.mark.parametrize('before,after', [
    ('fp16', 'bf16'), ('bf16', 'fp16'), ('fp16', None), (None, 'fp16'), (None, 'bf16'), ('bf16', None)])
def test_training_resumes_in_another_precision(toy_root, tmp_path, before, after):
    needs(before, after)
    train(config(toy_root, tmp_path, 1), amp=before)
    train(config(toy_root, tmp_path, 2), resume=True, amp=after)
    assert DtypeRecorder.forward == {DTYPES.get(after, torch.float32)}
    state = content(tmp_path / 'iter_2.pth')['optimizer']
    assert ('loss_scaler' in state) == (after == 'fp16')
    if 'fp16' not in (before, after):  # whose first steps may overflow
        assert all(values['step'] == 2 for values in state['state'].values())


@pytest.mark.slow
@pytest.mark.parametrize('amp', DTYPES)
def test_accumulated_and_averaged(toy_root, tmp_path, amp):
    """With --match-batch, gradients clipped, and an average of the weights."""
    needs(amp)
    cfg = config(toy_root, tmp_path, 2, custom_hooks=[dict(type='EMAHook', momentum=0.1)])
    cfg.optim_wrapper.update(clip_grad=dict(max_norm=1.))
    if amp == 'fp16':
        cfg.optim_wrapper.loss_scale = 64.  # under which no step of the toy overflows
    train(cfg, amp=amp, accumulate=True)
    count = cfg.optim_wrapper.accumulative_counts
    end = content(tmp_path / f'iter_{2 * count}.pth')
    assert count == 3 and all(state['step'] == 2 for state in end['optimizer']['state'].values())
    norms, _ = end['message_hub']['log_scalars']['train/grad_norm'].data
    assert len(norms) == 2 and all(0 < norm < 100 for norm in norms)
    for state in (end['state_dict'], end['ema_state_dict']):
        assert all(torch.isfinite(value).all() for value in state.values())


def a_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1)).to(get_device())


def wrapper_of(model, kind=AutocastOptimWrapper, **settings):
    wrapper = kind(optimizer=torch.optim.AdamW(model.parameters(), lr=0.1), **settings)
    wrapper.initialize_count_status(model, 0, 100)
    return wrapper


@pytest.mark.parametrize('amp,loss_scale', [('bf16', 'dynamic'), ('fp16', 1024), ('fp16', dict(init_scale=512.))])
def test_steps_are_those_of_plain_autocast(amp, loss_scale):
    """Bit for bit with bfloat16; with float16, whose loss is scaled, to its rounding of small gradients."""
    needs(amp)
    ours, plain = a_model(), a_model()
    settings = dict(accumulative_counts=2, clip_grad=dict(max_norm=0.5))
    wrapper = wrapper_of(ours, dtype=DTYPES[amp], loss_scale=loss_scale, **copy.deepcopy(settings))
    other = wrapper_of(plain, OptimWrapper, **copy.deepcopy(settings))
    for _ in range(6):
        x = torch.randn(4, 8, device=get_device())
        with wrapper.optim_context(ours):
            loss = ours(x).float().square().mean()
        wrapper.update_params(loss)
        with torch.autocast(get_device(), dtype=DTYPES[amp]):
            loss = plain(x).float().square().mean()
        other.update_params(loss)
    tolerance = dict(rtol=0, atol=0) if amp == 'bf16' else dict(rtol=1e-2, atol=1e-3)
    for a, b, start in zip(ours.parameters(), plain.parameters(), a_model().parameters()):
        torch.testing.assert_close(a, b, **tolerance)
        assert abs(a - start).max() > 0.05


def test_steps_that_overflow_are_left_out():
    needs('fp16')
    model = a_model()
    wrapper = wrapper_of(model, loss_scale=dict(init_scale=2.**120))
    for leaves in (True, False):
        before = copy.deepcopy(model.state_dict())
        if not leaves:
            wrapper.loss_scaler.update(1.)
        with wrapper.optim_context(model):
            loss = model(torch.ones(2, 8, device=get_device())).float().square().mean()
        wrapper.update_params(loss)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) == leaves
        assert wrapper.loss_scaler.get_scale() == (2.**119 if leaves else 1.)


def test_checkpoints_of_mmengines_own_wrappers_load():
    needs('fp16')
    model = a_model()
    model(torch.ones(1, 8, device=get_device())).sum().backward()
    plain = wrapper_of(model, OptimWrapper)
    plain.step()
    scale = dict(scale=2.**9, growth_factor=2., backoff_factor=0.5, growth_interval=2000, _growth_tracker=7)
    for dtype in DTYPES.values():
        for state, expected in ((plain.state_dict(), 2.**16), ({**plain.state_dict(), 'loss_scaler': scale}, 2.**9)):
            wrapper = wrapper_of(model, dtype=dtype)
            wrapper.load_state_dict(copy.deepcopy(state))
            assert all(values['step'] == 1 for values in wrapper.optimizer.state.values()) and wrapper.optimizer.state
            if dtype == torch.float16:
                assert wrapper.loss_scaler.get_scale() == expected
                if 'loss_scaler' in state:
                    assert wrapper.state_dict()['loss_scaler'] == scale


@pytest.mark.parametrize('settings,words', [
    (dict(dtype='int8'), "optim_wrapper.dtype='int8': allowed are float16, bfloat16"),
    (dict(dtype=torch.float64), 'allowed are float16, bfloat16'),
    (dict(loss_scale='static'), "loss_scale='static': allowed are 'dynamic', a number, and a dict")])
def test_settings_that_are_none_are_refused(settings, words):
    needs('fp16')
    with pytest.raises(ConfigError, match=words):
        wrapper_of(a_model(), **settings)


def test_float16_is_refused_where_it_is_not_to_be_had(monkeypatch):
    """PyTorch 2.1 and 2.2 scale no loss on CPUs."""
    monkeypatch.delattr(torch.amp, 'GradScaler', raising=False)
    check_autocast('cpu', torch.bfloat16)
    check_autocast('cuda', torch.float16)
    with pytest.raises(ConfigError, match='--amp fp16 needs a GPU: PyTorch .* does not train in .* Use --amp bf16'):
        check_autocast('cpu', torch.float16)


def test_the_scaler_is_the_one_that_this_pytorch_has(monkeypatch):
    made = []
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda **settings: made.append(settings), raising=False)
    monkeypatch.setattr(torch.cuda.amp, 'GradScaler', lambda **settings: made.append(settings))
    mixed_precision._loss_scaler('cuda', 8)
    mixed_precision._loss_scaler('cuda', 'dynamic')
    monkeypatch.delattr(torch.amp, 'GradScaler')
    mixed_precision._loss_scaler('cuda', 8)
    mixed_precision._loss_scaler('cuda', 'dynamic')
    on = dict(enabled=True)
    assert made == [dict(device='cuda', init_scale=8., **on), dict(device='cuda', **on), dict(init_scale=8., **on), on]


@pytest.mark.parametrize('amp,dtype', [('fp16', 'float16'), ('bf16', 'bfloat16')])
def test_the_option_changes_the_wrapper(monkeypatch, toy_root, tmp_path, amp, dtype):
    monkeypatch.setattr(run, 'get_device', lambda: 'cuda')
    for kind in ('OptimWrapper', 'AmpOptimWrapper'):
        cfg = short_config(toy_root, tmp_path, **{'optim_wrapper.type': kind})
        run._mix_precision(cfg, amp)
        assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AutocastOptimWrapper', dtype)
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ConfigError, match='--amp replaces optim_wrapper.type OptimWrapper, but the config has Apex'):
        run._mix_precision(cfg, amp)
