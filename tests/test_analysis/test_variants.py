"""Benchmarks run what they say they run."""
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from mmseg_inceptionnext.analysis import variants
from mmseg_inceptionnext.analysis.complexity import count_complexity
from mmseg_inceptionnext.analysis.measure import PRECISIONS
from mmseg_inceptionnext.analysis.paper import TABLE_4
from mmseg_inceptionnext.analysis.stock import timm_model_cfg
from mmseg_inceptionnext.analysis.variants import STOCK_SETTINGS, Settings, Variant, build, call_of
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import InputError

from utils import ROOT

FPN = str(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py')


@pytest.fixture
def compile_marks(monkeypatch):
    """Compiling a model sets a mark on it."""
    def compile_model(model):
        model.is_compiled = True
        return model

    monkeypatch.setattr(variants, 'compile_model', compile_model)


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_variants_are_what_they_are_called(compile_marks):
    found = variants.stock_variants(FPN, 'predict', compile=True)
    models = {variant.name: build(variant, STOCK_SETTINGS['predict']) for variant in found}
    assert {name: (hasattr(model, 'fused'), hasattr(model, 'is_compiled')) for name, model in models.items()} == {
        'stock': (False, False), 'ours': (True, False), 'ours, not fused': (False, False),
        'stock, compiled': (False, True), 'ours, compiled': (True, True)}
    assert len({id(next(model.parameters())) for model in models.values()}) == len(models)
    assert not any(model.training for model in models.values())
    assert [variant.name for variant in variants.stock_variants(FPN, 'backbone')][2:] == ['timm ConvNeXt-T']
    stock, ours = variants.stock_variants(FPN, 'train')
    model = build(ours, STOCK_SETTINGS['train'])
    assert model.training and not hasattr(model, 'fused')


@pytest.mark.parametrize('mode', ['predict', 'train', 'backbone'])
def test_settings_reach_both_ways(mode):
    settings, seen = STOCK_SETTINGS[mode]._replace(batch_size=3, shape=(64, 96), size=None, amp='bf16'), {}
    for variant in variants.stock_variants(FPN, mode, channels_last=True)[:2]:
        model = build(variant, settings)
        backbone = getattr(model, 'backbone', model)
        conv = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
        conv.register_forward_hook(lambda conv, inputs, output, name=variant.name: seen.update({name: [
            is_channels_last(conv.weight), output.dtype]}))
        backbone.register_forward_hook(lambda backbone, inputs, output, name=variant.name: seen[name].extend(
            [is_channels_last(inputs[0]), tuple(inputs[0].shape)]))
        call_of(model, variant, settings)()
    assert seen['stock'] == [True, torch.bfloat16, True, (3, 3, 64, 96)]
    assert seen['ours'][1] == torch.bfloat16 and seen['ours'][3] == (3, 3, 64, 96)


def test_options_reach_a_config(compile_marks):
    config, other = variants.config_variants([FPN], 'best', fused=True)
    assert (config.memory_format, other.memory_format) == ('nchw', 'nhwc')
    model = build(other, Settings(amp='bf16'))
    assert model.fused and is_channels_last(model.backbone.stem[0].weight)
    assert model.backbone.stem[0].weight.dtype == torch.bfloat16
    config, = variants.config_variants([FPN], 'nchw', compile=True)
    model = build(config, Settings('train', backbone_only=True))
    assert model.training and model.is_compiled and model.stem[0].weight.is_contiguous()


class Tiny(nn.Sequential):
    """A classifier that notes whether its input was channels-last, whether it trained, and the dtype of its logits."""

    def __init__(self, name, features_only):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
        assert features_only is None
        self.seen = []
        self.register_forward_hook(lambda model, inputs, output: self.seen.append(
            (is_channels_last(inputs[0]), model.training, output.dtype)))


def test_gradients_are_computed_outside_of_autocast(monkeypatch):
    order = []

    @contextmanager
    def autocast(device, amp):
        order.append(f'enter {amp}')
        yield
        order.append('exit')

    monkeypatch.setattr(variants, 'autocast', autocast)
    model = Tiny('', None)
    model[0].bias.register_hook(lambda gradient: order.append('backward'))
    call_of(model, Variant('', 'timm', ''), Settings('train', shape=(4, 4), amp='fp16'))()
    assert order == ['enter fp16', 'exit', 'backward']


@pytest.mark.parametrize('mode,amp', [('infer', 'fp32'), ('train', 'bf16')])
def test_classifiers_run_as_asked(monkeypatch, mode, amp):
    monkeypatch.setattr(variants.timm, 'create_model', Tiny)
    settings = Settings(mode, 2, (32, 32), amp=amp)
    for variant in variants.classifier_variants([]):
        model = build(variant, settings)
        before = [parameter.clone() for parameter in model.parameters()]
        call_of(model, variant, settings)()
        assert model.seen == [(variant.memory_format == 'nhwc', mode == 'train', PRECISIONS[amp])]
        changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), before)]
        assert all(changed) if mode == 'train' else not any(changed)


def test_names_of_classifiers():
    found = variants.classifier_variants(['convnext_tiny', 'inception_next_tiny'], 'both', compile=True)
    assert [(variant.path, variant.compiled, variant.memory_format) for variant in found] == [
        (name, compiled, form) for name in ('inception_next_tiny', 'convnext_tiny') for compiled in (False, True)
        for form in ('nchw', 'nhwc')]
    assert [variant.group for variant in found[:4]] == [variant.group for variant in found[4:]]
    assert len({variant.group for variant in found}) == 4
    assert len({variant.group for variant in variants.classifier_variants([], 'best')}) == 1
    assert {variant.path for variant in variants.classifier_variants(['all'], 'nchw')} == set(TABLE_4)
    with pytest.raises(ValueError, match="no classifier 'convnext_tini'; allowed are its names, such as convnext_tiny"):
        variants.classifier_variants(['resnet50', 'convnext_tini'])


@pytest.mark.parametrize('change,words', [
    (lambda model: model.backbone.update(arch=dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))), 'timm has no counterpart'),
    (lambda model: model.backbone.update(arch='giant'), 'timm has no counterpart'),
    (lambda model: model.pop('backbone'), 'timm has no counterpart'),
    (lambda model: model.pop('decode_head'), 'has no decode_head'),
    (lambda model: model.update(decode_head=[model.decode_head] * 2), 'has 2 decode heads')])
def test_models_without_a_counterpart_are_explained(change, words):
    cfg = load_config(str(ROOT / 'configs/upernet_inceptionnext_t_ade20k.py'))
    change(cfg.model)
    with pytest.raises(InputError, match=words):
        timm_model_cfg(cfg.model)
    if 'decode_head' in words:
        with pytest.raises(InputError, match=words):
            count_complexity(cfg, (64, 64))
