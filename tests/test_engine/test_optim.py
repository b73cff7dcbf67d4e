"""Layer-wise learning-rate decay, and fused optimizers: where they are chosen, and how a resumed run computes steps."""
import logging
import re

import pytest
import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import nn

from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.engine import check_autocast, fuse_optimizer, optim
from mmseg_inceptionnext.engine.optim import keep_own_steps
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import InceptionNeXt, IsotropicMetaNeXt

from utils import content, fused_or_skip, short_config

BN = dict(norm_cfg=dict(type='BN'), out_norm_cfg=dict(type='BN'))
# By hand, for depths 1, 2, 1, 1: five blocks, so that all outside is layer 6.
LAYERS = {
    'backbone.stem.': 0, 'backbone.stages.0.blocks.0.': 1,
    'backbone.stages.1.downsample.': 2, 'backbone.stages.1.blocks.0.': 2, 'backbone.stages.1.blocks.1.': 3,
    'backbone.stages.2.downsample.': 4, 'backbone.stages.2.blocks.0.': 4,
    'backbone.stages.3.downsample.': 5, 'backbone.stages.3.blocks.0.': 5,
    'backbone.norm0.': 6, 'backbone.norm1.': 6, 'backbone.norm2.': 6, 'backbone.norm3.': 6, 'head.': 6,
}


class Segmentor(nn.Module):

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Conv2d(8, 3, 1)


def small(**kwargs):
    return Segmentor(InceptionNeXt(dict(depths=(1, 2, 1, 1), dims=(16, 24, 32, 48)), **BN, **kwargs))


def settings(model, **paramwise):
    """Learning rate and weight decay of each parameter of the optimizer, by name."""
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1),
        constructor='LayerDecayOptimWrapperConstructor', paramwise_cfg=paramwise))
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    assert len(groups) == sum(len(group['params']) for group in wrapper.optimizer.param_groups)
    return {name: (groups[id(p)]['lr'], groups[id(p)]['weight_decay'])
            for name, p in model.named_parameters() if id(p) in groups}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.)


def layer(name):
    found, = (number for prefix, number in LAYERS.items() if name.startswith(prefix))
    return found


def test_every_parameter_has_the_rate_of_its_layer():
    model = small()
    found = settings(model, decay_rate=0.5, flat_decay_mult=0.)
    expected = {name: (0.01 * 0.5**(6 - layer(name)), 0.1 if p.ndim > 1 else 0.)
                for name, p in model.named_parameters()}
    assert {layer(name) for name in expected} == set(range(7)) and len(expected) > 80
    close(found, expected)
    close(found['backbone.stem.1.weight'], (0.01 / 64, 0.))
    close(found['backbone.stages.3.blocks.0.mlp.fc1.weight'], (0.005, 0.1))


def test_isotropic_blocks_are_layers():
    backbone = IsotropicMetaNeXt(dict(type='InceptionDWConv2d'), depth=4, dim=16, out_indices=(1, 2), **BN)
    found = settings(Segmentor(backbone), decay_rate=0.5)  # the fourth block is not built
    expected = {'backbone.stem.0.bias': 4, 'backbone.blocks.0.gamma': 3, 'backbone.blocks.2.mlp.fc2.weight': 1,
                'backbone.norm2.weight': 0, 'head.bias': 0}
    close({name: found[name] for name in expected},
          {name: (0.01 * 0.5**power, 0.1) for name, power in expected.items()})


def test_mmengines_settings_hold_beside_it():
    keys = {'head': dict(lr_mult=10.), 'stages.1.blocks.1': dict(lr_mult=2., decay_mult=3.)}
    found = settings(small(), decay_rate=0.5, custom_keys=keys, norm_decay_mult=0., bias_lr_mult=4.)
    expected = {
        'head.weight': (0.1, 0.1), 'backbone.stages.1.blocks.1.mlp.fc1.bias': (0.01 * 2 / 8, 0.1 * 3),
        'backbone.stages.1.blocks.1.norm.weight': (0.01 * 2 / 8, 0.1 * 3),  # a custom key shuts the other settings out
        'backbone.stages.3.blocks.0.norm.bias': (0.005, 0.), 'backbone.stages.3.blocks.0.mlp.fc1.bias': (0.02, 0.1)}
    close({name: found[name] for name in expected}, expected)


def test_frozen_layers_keep_their_number():
    found = settings(small(frozen_stages=1), decay_rate=0.5)
    assert not [name for name in found if name.startswith(('backbone.stem', 'backbone.stages.0'))]
    assert found['backbone.stages.1.downsample.1.weight'][0] == pytest.approx(0.01 / 16)


def test_a_rate_of_one_changes_nothing_and_steps_are_taken():
    model = small()
    assert set(settings(model, decay_rate=1, flat_decay_mult=0.).values()) == {(0.01, 0.1), (0.01, 0.)}
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='SGD', lr=1.), constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=0.5)))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(before[name] - p, torch.full_like(p, 0.5**(6 - layer(name))), atol=1e-6, rtol=0)


def test_the_table_says_it_once():
    logger, lines = MMLogger.get_instance('test_optim'), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    model = small()
    settings(model, decay_rate=0.5, flat_decay_mult=0.)
    table, = (line for line in lines if line.startswith('layer-wise learning-rate decay of 0.5:'))
    rows = re.findall(r'\| +(\d+) \| (.*?) +\| +(\d+) \| +([\d.e-]+) \| +([\d.]+) \|', table)
    assert len(rows) == 2 * 7  # weights, and what does not decay
    assert sum(int(row[2]) for row in rows) == sum(p.numel() for p in model.parameters())
    assert ('0', 'stem', str(16 * 3 * 16), '0.0001563', '0.1') in rows
    assert [row[1] for row in rows if row[0] in '26'] == 2 * ['stages.1.downsample, stages.1.blocks.0'] + 2 * [
        'the rest, and all outside']


@pytest.mark.parametrize('paramwise,words', [
    ({}, 'decay_rate=None'), (dict(decay_rate=0), 'decay_rate=0:'), (dict(decay_rate=1.1), 'at most 1'),
    (dict(decay_rate='0.9'), "decay_rate='0.9'"),
    (dict(decay_rate=0.9, num_layers=6, decay_type='stage_wise'), 'num_layers and decay_type in paramwise_cfg'),
])
def test_what_cannot_be_is_explained(paramwise, words):
    with pytest.raises(ConfigError, match=words):
        settings(small(), **paramwise)


@pytest.mark.parametrize('model,words', [
    (Segmentor(nn.Conv2d(1, 1, 1)), 'backbone is Conv2d. Take optim_wrapper.constructor out'),
    (nn.Conv2d(1, 1, 1), 'backbone is none'),
])
def test_other_backbones_are_refused(model, words):
    with pytest.raises(ConfigError, match=words):
        settings(model, decay_rate=0.9)


def test_the_learning_rate_must_be_known():
    with pytest.raises(ConfigError, match='needs optim_wrapper.optimizer.lr'):
        build_optim_wrapper(small(), dict(
            optimizer=dict(type='AdamW'), constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.9)))


@pytest.mark.parametrize('device,options,expected', [
    ('cuda', {}, True), ('cpu', {}, None), ('cuda', {'optim_wrapper.optimizer.type': 'Adam'}, True),
    ('cuda', {'optim_wrapper.optimizer.type': torch.optim.AdamW}, True),
    ('cuda', {'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, _delete_=True)}, None),
    ('cuda', {'optim_wrapper.optimizer.fused': False}, False),
    ('cuda', {'optim_wrapper.optimizer.foreach': True}, None),
    ('cuda', {'runner_type': 'FlexibleRunner'}, None)])
def test_the_optimizers_that_are_fused(monkeypatch, toy_root, tmp_path, device, options, expected):
    monkeypatch.setattr(optim, 'get_device', lambda: device)
    cfg = short_config(toy_root, tmp_path, **options)
    fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') is expected


@pytest.fixture(autouse=True)
def any_algorithm():
    yield
    torch.use_deterministic_algorithms(False)


def test_several_optimizers_are_left_alone(monkeypatch, toy_root, tmp_path):
    monkeypatch.setattr(optim, 'get_device', lambda: 'cuda')
    cfg = short_config(toy_root, tmp_path)
    cfg.optim_wrapper = dict(constructor='Own', backbone=cfg.optim_wrapper)
    fuse_optimizer(cfg)
    assert 'fused' not in cfg.optim_wrapper.backbone.optimizer


def config(toy_root, work_dir, max_iters, is_fused):
    cfg = short_config(toy_root, work_dir, max_iters, val_interval=10, randomness=dict(seed=3))
    cfg.train_dataloader.batch_size = 2
    cfg.optim_wrapper.optimizer.fused = is_fused
    if is_fused:
        fused_or_skip()
    return cfg


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    keep_own_steps(OptimWrapper(optimizer), state)
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
                keep_own_steps(wrapper, state)
                wrapper.load_state_dict(state)
            parameter.grad = gradient.contiguous(memory_format=memory_format)
            wrapper.step()
            weight, state = parameter.detach(), wrapper.state_dict()
        results.append(weight)
    torch.testing.assert_close(*results)


def test_several_optimizers_load_what_they_find():
    state = dict(backbone=dict(param_groups=[dict(fused=True, params=[])]))
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    keep_own_steps(OptimWrapperDict(backbone=OptimWrapper(optimizer)), state)
    assert state == dict(backbone=dict(param_groups=[dict(fused=True, params=[])]))
