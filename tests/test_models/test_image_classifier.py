"""Classifiers. The peer is timm: its models write the files and give the logits."""
import copy
import re

import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from timm.models.convnext import checkpoint_filter_fn
from torch import nn
from torch.nn import functional as F

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import CheckpointError, ConfigError, InputError
from mmseg_inceptionnext.models import ClassifierDataPreprocessor, ImageClassifier

from utils import ROOT, randomise

PUBLISHED = {'inceptionnext_a_in1k': 'inception_next_atto', 'inceptionnext_t_in1k': 'inception_next_tiny',
             'inceptionnext_s_in1k': 'inception_next_small', 'inceptionnext_b_in1k': 'inception_next_base',
             'inceptionnext_b_in1k_384': 'inception_next_base.sail_in1k_384'}
PARTIAL = {'metanext_t_dw5': (5, 1.), 'metanext_t_dw3': (3, 1.), 'metanext_t_dw3-1of2': (3, 1 / 2),
           'metanext_t_dw3-3of8': (3, 3 / 8), 'metanext_t_dw3-1of4': (3, 1 / 4), 'metanext_t_dw3-1of8': (3, 1 / 8),
           'metanext_t_dw3-1of16': (3, 1 / 16)}


def build(name, sizes=None, init_cfg=None):
    init_default_scope('mmseg')
    cfg = load_config(str(ROOT / f'configs/pretrain/{name}.py')).model
    cfg.backbone.update(sizes or {})
    return MODELS.build(dict(cfg, init_cfg=init_cfg)).double().eval()


def atto(**settings):
    init_default_scope('mmseg')
    backbone = dict(type='InceptionNeXt', arch='atto', norm_cfg=dict(type='BN'), **settings.pop('backbone', {}))
    return ImageClassifier(backbone, **settings)


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name == 'inceptionnext_a_in1k' else pytest.mark.slow)
                                  for name in PUBLISHED])
def test_state_dict_and_logits_are_those_of_the_published_models(name):
    theirs = randomise(timm.create_model(PUBLISHED[name])).double().eval()
    ours = build(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for size in (1, 3, 224, 224), (2, 3, 224, 224), (2, 3, 96, 65), (1, 3, 384, 384):
        images = torch.randn(*size, dtype=torch.float64)
        with torch.no_grad():
            expected = theirs(images)
            torch.testing.assert_close(ours(images), expected, rtol=1e-10, atol=1e-10)
        assert expected.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_a_file_of_timm_loads_completely_or_not_at_all(tmp_path, name):
    theirs = randomise(timm.create_model(PUBLISHED[name]))
    torch.save(theirs.state_dict(), tmp_path / 'weights.pth')
    cfg = load_config(str(ROOT / f'configs/pretrain/{name}.py')).model
    cfg.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    ours = MODELS.build(cfg)
    ours.init_weights()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('head.fc2.bias'), '1 missing: head.fc2.bias'),
    (lambda state: state.update({'head.fc3.bias': torch.zeros(3)}), '1 unexpected: head.fc3.bias'),
    (lambda state: state.update({'head.fc2.bias': torch.zeros(3)}), 'head.fc2.bias'),
    (lambda state: state.update({'head.fc2.bias': torch.full((1000, ), torch.nan)}), 'NaN'),
])
def test_what_does_not_fit_is_refused_and_loads_nothing(tmp_path, change, message):
    model = atto()
    state = copy.deepcopy(model.state_dict())
    change(state)
    torch.save(state, tmp_path / 'weights.pth')
    model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=re.escape(message)):
        model.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_other_settings_of_init_cfg_are_refused():
    with pytest.raises(CheckpointError, match='model.backbone.init_cfg'):
        atto(init_cfg=dict(type='Normal', layer='Conv2d')).init_weights()


def facebook_names(state):
    """The names of ConvNeXt's authors for the tensors of timm's ConvNeXt."""
    names = {}
    for key, value in state.items():
        key = re.sub(r'^stem\.', 'downsample_layers.0.', key)
        key = re.sub(r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.', key)
        key = re.sub(r'^stages\.(\d)\.blocks\.', r'stages.\1.', key)
        key = key.replace('conv_dw', 'dwconv').replace('mlp.fc', 'pwconv')
        names[key.replace('head.norm', 'norm').replace('head.fc', 'head')] = value
    return names


@pytest.fixture(params=['small', pytest.param('tiny', marks=pytest.mark.slow)])
def sizes(request):
    """Depths and widths of a ConvNeXt."""
    if request.param == 'tiny':
        return dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768))
    return dict(depths=(1, 1, 2, 1), dims=(16, 32, 48, 64))


def test_convnexts_files_of_its_authors_and_of_timm_give_timms_logits(tmp_path, sizes):
    theirs = randomise(timm.models.ConvNeXt(**sizes)).double().eval()
    randomise_linear(theirs)
    facebook = facebook_names(theirs.state_dict())
    assert {'downsample_layers.3.1.weight', 'stages.2.1.pwconv2.bias', 'norm.bias', 'head.weight'} <= set(facebook)
    again = checkpoint_filter_fn(facebook, theirs)  # timm's own conversion of these names
    assert list(again) == list(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images)
    assert expected.std() > 0.1
    for name, state in dict(timm=theirs.state_dict(), facebook=dict(model=facebook)).items():
        torch.save(state, tmp_path / f'{name}.pth')
        ours = build('metanext_t_dw7_in1k', sizes, dict(type='Pretrained', checkpoint=str(tmp_path / f'{name}.pth')))
        ours.init_weights()
        with torch.no_grad():
            torch.testing.assert_close(ours(images), expected, rtol=1e-9, atol=1e-9)


class PartialConv(nn.Module):
    """As the authors' variants convolve: the last channels of a map."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        n = self.conv.in_channels
        return torch.cat((x[:, :x.shape[1] - n], self.conv(x[:, x.shape[1] - n:])), 1)


@pytest.mark.parametrize('name', PARTIAL)
def test_the_authors_files_of_table_1_give_the_maps_of_a_changed_timm_model(tmp_path, name, sizes):
    kernel, ratio = PARTIAL[name]
    theirs = timm.models.ConvNeXt(**sizes).double().eval()
    for stage in theirs.stages:
        for block in stage.blocks:
            channels = int(ratio * block.conv_dw.in_channels)
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels).double()
            block.conv_dw = conv if ratio == 1 else PartialConv(conv)
    randomise(theirs)
    randomise_linear(theirs)
    state = facebook_names(theirs.state_dict())
    assert ('stages.0.0.dwconv.weight' if ratio == 1 else 'stages.0.0.dwconv.conv.weight') in state
    torch.save(state, tmp_path / 'weights.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    images = torch.randn(2, 3, 64, 65, dtype=torch.float64)
    classifier = build(f'{name}_in1k', sizes, pretrained)
    segmentor = load_config(str(ROOT / f'configs/ablations/upernet_{name}_ade20k.py')).model
    backbone = MODELS.build(dict(segmentor.backbone, **sizes, init_cfg=pretrained, out_norm_cfg=None)).double().eval()
    classifier.init_weights(), backbone.init_weights()
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), theirs(images), rtol=1e-9, atol=1e-9)
        expected = theirs.forward_intermediates(images, intermediates_only=True)
        for ours, other in zip(backbone(images), expected):
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def randomise_linear(model):
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            nn.init.normal_(module.weight, 1. if isinstance(module, nn.LayerNorm) else 0., 0.1)
            nn.init.normal_(module.bias, std=0.1)


@pytest.mark.parametrize('head', ['mlp', 'linear'])
def test_fused_and_copied_the_logits_stay(head):
    model = randomise(atto(head=head)).double().eval()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        fused = fuse(model)
        torch.testing.assert_close(fused(images), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=0)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fused.modules()) == 0
    with pytest.raises(RuntimeError, match='fused'):
        fused.train()


def test_losses_and_predictions_are_those_of_pytorch():
    model = randomise(atto(num_classes=7)).double().eval()
    images, labels = torch.randn(3, 3, 64, 64, dtype=torch.float64), torch.tensor([2, 0, 6])
    logits = model(images)
    torch.testing.assert_close(model(images, labels, 'loss')['loss'], F.cross_entropy(logits, labels))
    soft = torch.softmax(torch.randn(3, 7, dtype=torch.float64), 1)
    torch.testing.assert_close(model(images, soft, 'loss')['loss'], F.cross_entropy(logits, soft))
    for sample, label, one in zip(model(images, labels, 'predict'), labels, logits):
        assert sample['label'] == label
        torch.testing.assert_close(sample['scores'], one.softmax(0))


def test_frozen_stages_stay_in_eval_mode():
    model = atto(backbone=dict(frozen_stages=2)).train()
    assert not model.stages[1].training and model.stages[2].training and model.head.training
    assert not any(p.requires_grad for p in model.stages[0].parameters())


def test_weights_start_as_published():
    model = atto()
    model.init_weights()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert abs(parameter.std() - 0.02) < 0.004 and parameter.abs().max() <= 0.1, name
        elif name.endswith('bias'):
            assert not parameter.any(), name


def test_mixup_smooths_and_mixes_labels_and_images():
    data = dict(inputs=torch.rand(4, 3, 8, 8), data_samples=torch.tensor([0, 1, 2, 3]))
    smooth = ClassifierDataPreprocessor(dict(prob=0., label_smoothing=0.1, num_classes=5))(data, training=True)
    torch.testing.assert_close(smooth['data_samples'], torch.eye(5)[:4] * 0.9 + 0.02)
    torch.testing.assert_close(smooth['inputs'], data['inputs'])
    mixed = ClassifierDataPreprocessor(dict(mixup_alpha=0.8, label_smoothing=0., num_classes=5))(data, training=True)
    shares = mixed['data_samples']
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    expected = torch.einsum('nk,kchw->nchw', shares[:, :4], data['inputs'])
    torch.testing.assert_close(mixed['inputs'], expected)
    assert shares.diagonal().min() < 1
    plain = ClassifierDataPreprocessor(dict(mixup_alpha=0.8, num_classes=5))(data, training=False)
    assert plain['data_samples'].tolist() == [0, 1, 2, 3] and torch.equal(plain['inputs'], data['inputs'])
    with pytest.raises(ConfigError, match='even number'):
        ClassifierDataPreprocessor(dict(num_classes=5))(
            dict(inputs=torch.rand(3, 3, 8, 8), data_samples=torch.tensor([0, 1, 2])), training=True)


def test_an_unknown_head_is_refused():
    with pytest.raises(InputError, match='mlp, linear'):
        atto(head='conv')


def test_on_a_device_it_takes_the_format_of_the_plan():
    model = randomise(atto()).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)
    assert model.to('cpu').stages[1].blocks[0].mlp.fc1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
