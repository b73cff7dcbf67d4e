"""Layer-wise learning-rate decay, through MMEngine's own builder."""
import logging
import re

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import InceptionNeXt, IsotropicMetaNeXt

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
