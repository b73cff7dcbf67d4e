"""Fused optimizers: where they are chosen, and that a resumed run computes its steps as it was set up to."""
import pytest
import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.engine import check_autocast, fuse_optimizer, fused
from mmseg_inceptionnext.errors import ConfigError

from utils import content, short_config


@pytest.mark.parametrize('device,options,expected', [
    ('cuda', {}, True), ('cpu', {}, None), ('cuda', {'optim_wrapper.optimizer.type': 'Adam'}, True),
    ('cuda', {'optim_wrapper.optimizer.type': torch.optim.AdamW}, True),
    ('cuda', {'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, _delete_=True)}, None),
    ('cuda', {'optim_wrapper.optimizer.fused': False}, False),
    ('cuda', {'optim_wrapper.optimizer.foreach': True}, None),
    ('cuda', {'runner_type': 'FlexibleRunner'}, None)])
def test_the_optimizers_that_are_fused(monkeypatch, toy_root, tmp_path, device, options, expected):
    monkeypatch.setattr(fused, 'get_device', lambda: device)
    cfg = short_config(toy_root, tmp_path, **options)
    fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') is expected


@pytest.fixture(autouse=True)
def any_algorithm():
    yield
    torch.use_deterministic_algorithms(False)


def test_several_optimizers_are_left_alone(monkeypatch, toy_root, tmp_path):
    monkeypatch.setattr(fused, 'get_device', lambda: 'cuda')
    cfg = short_config(toy_root, tmp_path)
    cfg.optim_wrapper = dict(constructor='Own', backbone=cfg.optim_wrapper)
    fuse_optimizer(cfg)
    assert 'fused' not in cfg.optim_wrapper.backbone.optimizer


def fused_or_skip():
    """Fused optimizers for CPUs came with PyTorch 2.4."""
    try:
        torch.optim.AdamW([torch.ones(1, device=get_device(), requires_grad=True)], fused=True)
    except RuntimeError as error:
        pytest.skip(str(error))


def config(toy_root, work_dir, max_iters, is_fused):
    cfg = short_config(toy_root, work_dir, max_iters, val_interval=10, randomness=dict(seed=3))
    cfg.train_dataloader.batch_size = 2
    cfg.optim_wrapper.optimizer.fused = is_fused
    if is_fused:
        fused_or_skip()
    return cfg


def test_a_fused_step_is_the_same(toy_root, tmp_path):
    """It takes gradients to lie in memory as the weights do; the moments of the first step are the gradients."""
    for name, is_fused in (('fused', True), ('not', False)):
        train(config(toy_root, tmp_path / name, 1, is_fused), deterministic=True)
    a, b = (content(tmp_path / name / 'iter_1.pth') for name in ('fused', 'not'))
    for key, state in a['optimizer']['state'].items():
        for name, value in state.items():
            torch.testing.assert_close(value, b['optimizer']['state'][key][name], rtol=1e-4, atol=1e-9)
    for name, value in a['state_dict'].items():
        torch.testing.assert_close(value, b['state_dict'][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('before,after,amp', [
    (False, True, None), (True, False, None), (True, True, None), (False, True, 'fp16')])
def test_a_run_resumes_fused_or_not_as_its_config_says(toy_root, tmp_path, before, after, amp):
    try:
        check_autocast(get_device(), torch.float16 if amp else torch.float32)
    except ConfigError as error:
        pytest.skip(str(error))
    train(config(toy_root, tmp_path, 1, before), amp=amp)
    train(config(toy_root, tmp_path, 2, after), amp=amp, resume=True)
    state = content(tmp_path / 'iter_2.pth')['optimizer']
    assert len(state['param_groups']) > 100 and {bool(group['fused']) for group in state['param_groups']} == {after}
    if not amp:  # under which the first steps may overflow
        assert all(values['step'] == 2 for values in state['state'].values())


def test_a_checkpoint_of_a_gpu_resumes_where_nothing_is_fused(toy_root, tmp_path):
    """Of which PyTorch would take over that its steps are fused, on old CPUs where they cannot be."""
    train(config(toy_root, tmp_path, 1, False))
    checkpoint = content(tmp_path / 'iter_1.pth')
    for group in checkpoint['optimizer']['param_groups']:
        group['fused'] = True
    torch.save(checkpoint, tmp_path / 'iter_1.pth')
    train(config(toy_root, tmp_path, 2, False), resume=True)
    groups = content(tmp_path / 'iter_2.pth')['optimizer']['param_groups']
    assert not any(group['fused'] for group in groups)


@pytest.mark.parametrize('own,expected', [(dict(fused=True), 'meta'), (dict(capturable=True), 'meta'), ({}, 'cpu')])
def test_step_counts_go_where_they_are_read(monkeypatch, own, expected):
    """The host reads them one by one if the step is not fused; the device 'meta' stands for a GPU."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2, device='meta'))])
    optimizer.defaults.update(own)
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: torch.tensor(7.))
    state = dict(state={0: dict(step=torch.ones((), device='meta'), exp_avg=torch.ones(2, device='meta'))},
                 param_groups=[dict(fused=None, lr=0.5, params=[0])])
    fused.keep_own_steps(OptimWrapper(optimizer), state)
    assert state['state'][0]['step'].device.type == expected and state['state'][0]['exp_avg'].device.type == 'meta'
    assert state['param_groups'][0]['lr'] == 0.5 and state['param_groups'][0]['fused'] == own.get('fused')


@pytest.mark.parametrize('is_fused', [False, True])
def test_moments_lie_as_the_parameters_do(is_fused):
    """A fused step takes that for granted; the weights here are channels-last now and were not in the checkpoint."""
    if is_fused:
        fused_or_skip()
    steps = [torch.randn(4, 3, 2, 2, device=get_device()) for _ in range(2)]
    results = []
    for formats in ((torch.contiguous_format, ) * 2, (torch.contiguous_format, torch.channels_last)):
        weight, state = torch.ones(4, 3, 2, 2, device=get_device()), None
        for gradient, memory_format in zip(steps, formats):
            parameter = nn.Parameter(weight.contiguous(memory_format=memory_format))
            wrapper = OptimWrapper(torch.optim.AdamW([parameter], lr=0.1, fused=is_fused))
            if state:
                fused.keep_own_steps(wrapper, state)
                wrapper.load_state_dict(state)
            parameter.grad = gradient.contiguous(memory_format=memory_format)
            wrapper.step()
            weight, state = parameter.detach(), wrapper.state_dict()
        results.append(weight)
    torch.testing.assert_close(*results)


def test_several_optimizers_load_what_they_find():
    state = dict(backbone=dict(param_groups=[dict(fused=True, params=[])]))
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    fused.keep_own_steps(OptimWrapperDict(backbone=OptimWrapper(optimizer)), state)
    assert state == dict(backbone=dict(param_groups=[dict(fused=True, params=[])]))
