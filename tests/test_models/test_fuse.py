"""Fused models give the same maps, in float64 to rounding, and have no BatchNorm left where folding is exact."""
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmseg_inceptionnext
from mmseg_inceptionnext.models import InceptionNeXt, device_plan
from mmseg_inceptionnext.models.fuse import cast_convolutions
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

from utils import ROOT, narrow, randomise

fuse = mmseg_inceptionnext.fuse


def backbone(**kwargs):
    arch = dict(depths=(2, 1, 2, 1), dims=(16, 24, 32, 48))
    return randomise(without_sync_bn(InceptionNeXt(arch, **kwargs))).double().eval()


def segmentor(name, **head):
    """Of few channels."""
    cfg = Config.fromfile(ROOT / f'configs/{name}_inceptionnext_a_ade20k.py').model
    narrow(cfg)
    cfg.backbone.init_cfg = None
    cfg.decode_head.update(channels=24, num_classes=7, **head)
    if name == 'fpn':
        cfg.neck.out_channels = 16
        cfg.decode_head.in_channels = [16] * 4
    return randomise(without_sync_bn(MODELS.build(cfg))).eval()


def norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


@pytest.mark.parametrize('batch', [1, 3])
def test_backbone(batch):
    model = backbone()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse(model)
    image = torch.randn(batch, 3, 77, 97, dtype=torch.float64)
    with torch.no_grad():
        for mine, expected in zip(fused(image), model(image)):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    assert norms(fused) == ['norm0', 'norm1', 'norm2', 'norm3']  # of a backbone alone, nothing takes the outputs
    assert not any(name.endswith('gamma') for name, _ in fused.named_parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())  # the original is as it was
    assert fuse(fused) is fused


@pytest.mark.parametrize('plan', [device_plan.GPU] + [
    device_plan.CPU._replace(mlp_bytes=8 * numbers) for numbers in (1, 64 * 24 * 2, 64 * 24 * 7 * 2)])
def test_the_mlps_may_run_a_few_rows_at_a_time_or_whole(plan):
    with device_plan.using_plan(plan):
        compare_with_fused()


def compare_with_fused():
    model = backbone()
    image = torch.randn(2, 3, 77, 97, dtype=torch.float64)
    with torch.no_grad():
        for mine, expected in zip(fuse(model)(image), model(image)):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('kwargs', [
    dict(out_norm_cfg=None), dict(layer_scale_init_value=0), dict(dilations=(1, 1, 2, 4)), dict(out_indices=(1, 3)),
    dict(act_cfg=dict(type='ReLU'))], ids=str)
def test_other_backbones(kwargs):
    model = backbone(**kwargs)
    image = torch.randn(2, 3, 65, 70, dtype=torch.float64)
    fused = fuse(model)
    with torch.no_grad():
        for mine, expected in zip(fused(image), model(image)):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    padded = ['stages.2.downsample.0', 'stages.3.downsample.0'] if 'dilations' in kwargs else []
    assert [name for name in norms(fused) if not name.startswith('norm')] == padded  # a padded zero is no norm's shift


@pytest.mark.parametrize('name,left', [('upernet', ['backbone.norm3']), ('fpn', [])])
@pytest.mark.parametrize('size', [(96, 128), (107, 133)])
def test_segmentors(name, left, size):
    model = segmentor(name).double()
    fused = fuse(model)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fused(image), model(image), rtol=1e-9, atol=1e-9)
    assert norms(fused) == left and len(norms(model)) > 20
    assert not fused.with_auxiliary_head and model.with_auxiliary_head == (name == 'upernet')
    single = fuse(model.float())(image.float())
    assert (single - fused(image)).abs().max() < 1e-5 * fused(image).abs().max()
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in fused.parameters() if p.ndim == 4)


def test_heads_that_take_a_norms_output_twice_keep_it():
    model = segmentor('upernet', in_channels=[16, 16, 32, 48], in_index=[0, 0, 2, 3]).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fused = fuse(model)
    torch.testing.assert_close(fused(image), model(image), rtol=1e-9, atol=1e-9)
    assert norms(fused) == ['backbone.norm0', 'backbone.norm1', 'backbone.norm3']


@pytest.mark.parametrize('fused', [False, True])
def test_cast_weights_give_what_autocast_gives(fused):
    """Bit for bit, and nothing is left to cast but what is no convolution."""
    model = segmentor('upernet')
    if fused:
        model = fuse(model)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        expected = model(image)
        assert torch.equal(cast_convolutions(model, torch.bfloat16)(image), expected)
    assert {m.weight.dtype for m in model.modules() if isinstance(m, nn.Conv2d)} == {torch.bfloat16}


def test_a_fused_model_refuses_to_be_trained():
    fused = fuse(backbone())
    assert fused.eval() is fused
    with pytest.raises(RuntimeError, match='cannot be trained.*fuse that again'):
        fused.train()


def test_in_place():
    model = backbone()
    assert fuse(model, inplace=True) is model and 'stages.0.blocks.0.norm' not in norms(model)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match='a MetaNeXt backbone, a classifier with one, or a segmentor, got Linear'):
        fuse(nn.Linear(2, 2))
