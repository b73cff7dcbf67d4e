"""Pretrained weights load completely or not at all. The peer is timm: its models write the files and give the maps."""
import logging
import re

import pytest
import timm
import torch
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from safetensors.torch import save_file
from timm.models import FeatureListNet

from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.models import InceptionNeXt

from utils import randomise

PUBLISHED = {'inception_next_atto': 'atto', 'inception_next_tiny': 'tiny', 'inception_next_small': 'small',
             'inception_next_base': 'base', 'inception_next_base.sail_in1k_384': 'base'}


@pytest.fixture
def classifier():
    return randomise(timm.create_model('inception_next_atto'))


@pytest.fixture
def log(monkeypatch):
    """The lines that are logged in a test."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f'{record.levelname} {record.getMessage()}')
    logger = MMLogger.get_instance('test_pretrained', log_level='INFO')
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def backbone(path, arch='atto', allow_partial=None, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if allow_partial is not None:
        init_cfg['allow_partial'] = allow_partial
    model = InceptionNeXt(arch, init_cfg=init_cfg, **kwargs)
    model.init_weights()
    return model


def forms_of(classifier):
    """Every form in which the weights of a classifier circulate: name of the form to what is saved."""
    state = classifier.state_dict()
    flat = FeatureListNet(classifier, out_indices=(0, 1, 2, 3), flatten_sequential=True).state_dict()
    assert any(key.startswith('stages_0.') for key in flat)
    trunk = {key: value for key, value in state.items() if not key.startswith('head.')}
    segmentor = {**{f'backbone.{key}': value for key, value in trunk.items()},
                 'decode_head.conv_seg.weight': torch.zeros(2, 3, 1, 1), 'neck.convs.0.bias': torch.zeros(3)}
    return {
        'bare': state,
        'state_dict': dict(state_dict=state, epoch=3),
        'model': dict(model=state),
        'state_dict_ema': dict(state_dict_ema=state, state_dict={key: value + 1 for key, value in state.items()}),
        'model_ema': dict(model_ema=state, model={key: value + 1 for key, value in state.items()}),
        'module.': {f'module.{key}': value for key, value in state.items()},
        'encoder.': dict(model={f'encoder.{key}': value for key, value in state.items()}),
        'features_only': flat,
        'segmentor': dict(state_dict=segmentor, meta=dict(iter=7)),
        'segmentor of several processes': dict(
            state_dict={f'module.{key}': value for key, value in segmentor.items()}),
    }


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if arch == 'atto' else pytest.mark.slow) for name, arch in PUBLISHED.items()])
def test_every_form_of_a_published_model_gives_timms_maps(tmp_path, name):
    classifier = randomise(timm.create_model(name, pretrained=False)).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)
    assert len(expected) == 4 and all(y.std() > 0.1 for y in expected)
    forms = forms_of(classifier)
    names = forms if name == 'inception_next_atto' else ['bare', 'segmentor']  # a form has nothing to do with the size
    files = [(form, tmp_path / 'weights.pth') for form in names] + [('bare', tmp_path / 'weights.safetensors')]
    for form, path in files:
        save_file(forms[form], path) if path.suffix == '.safetensors' else torch.save(forms[form], path)
        model = backbone(path, PUBLISHED[name], out_norm_cfg=dict(type='BN')).eval()
        path.unlink()
        with torch.no_grad():
            for i, (y, y_timm) in enumerate(zip(model(image), expected)):
                torch.testing.assert_close(y, getattr(model, f'norm{i}')(y_timm), rtol=1e-4, atol=1e-4, msg=form)


@pytest.mark.parametrize('kwargs', [dict(out_norm_cfg=None), dict(out_indices=(0, 2)), dict(out_indices=(1, ))])
def test_what_is_not_built_is_left_out(tmp_path, classifier, kwargs):
    state = classifier.state_dict()
    torch.save(state, tmp_path / 'weights.pth')
    model = backbone(tmp_path / 'weights.pth', **kwargs)
    trunk = {key: value for key, value in model.state_dict().items() if not key.startswith('norm')}
    assert len(trunk) > 30
    for key, value in trunk.items():
        assert torch.equal(value, state[key]), key


def test_the_log_says_what_was_loaded(tmp_path, classifier, log):
    torch.save(classifier.state_dict(), tmp_path / 'weights.pth')
    backbone(tmp_path / 'weights.pth')
    trunk = sum(not key.startswith('head.') for key in classifier.state_dict())
    assert log[-1] == (f'INFO pretrained: {trunk}/{trunk} tensors from {tmp_path}/weights.pth; '
                       'ignored head.* (6); new: norm0, norm1, norm2, norm3')
    backbone(tmp_path / 'weights.pth', out_indices=(0, 2))
    assert log[-1].endswith('new: norm0, norm2')
    backbone(tmp_path / 'weights.pth', out_norm_cfg=None)
    assert log[-1].endswith('new: none')


def test_a_backbone_of_ours_keeps_its_output_norms(tmp_path, log):
    source = randomise(InceptionNeXt('atto'))
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in source.state_dict().items()}),
               tmp_path / 'segmentor.pth')
    model = backbone(tmp_path / 'segmentor.pth')
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    assert log[-1].endswith('new: none')
    with pytest.raises(CheckpointError, match='20 unexpected: norm0.weight'):  # the maps would not be the trained ones
        backbone(tmp_path / 'segmentor.pth', out_norm_cfg=None)


SPOILT = [
    ('missing', lambda s: s.pop('stages.1.blocks.0.gamma'), ['1 missing: stages.1.blocks.0.gamma']),
    ('left over', lambda s: s.update(extra=torch.zeros(1)), ['1 unexpected: extra']),
    ('a fifth stage', lambda s: s.update({'stages.4.x': torch.zeros(1)}), ['1 unexpected: stages.4.x']),
    ('another shape', lambda s: s.update({'stem.1.bias': torch.zeros(3)}),
     ['1 of another shape: stem.1.bias (3,)', '(40,)']),
    ('renamed', lambda s: s.update({'stem.2.bias': s.pop('stem.1.bias')}),
     ['1 missing: stem.1.bias', '1 unexpected: stem.2.bias']),
    ('half a norm', lambda s: s.update({'norm0.weight': torch.zeros(40)}), ['missing: norm0.bias']),
]


@pytest.mark.parametrize('spoil,words', [row[1:] for row in SPOILT], ids=[row[0] for row in SPOILT])
def test_a_checkpoint_that_does_not_fit_loads_nothing(tmp_path, classifier, spoil, words):
    state = classifier.state_dict()
    spoil(state)
    torch.save(state, tmp_path / 'weights.pth')
    model = InceptionNeXt('atto', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):  # the second time too: a failed start is no start
        with pytest.raises(CheckpointError) as error:
            model.init_weights()
        assert all(word in str(error.value) for word in [*words, 'weights.pth', 'nothing was loaded']), error.value
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('name,cause', [
    ('convnext_tiny', 'This looks like ConvNeXt'),
    ('inception_next_small', "This is arch 'small', the model is 'tiny'"),
    ('inception_next_atto', "This is arch 'atto', the model is 'tiny'"),
    ('resnet18', 'unexpected: conv1.weight'),
])
def test_another_network_is_named(tmp_path, name, cause):
    torch.save(timm.create_model(name).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(CheckpointError) as error:
        backbone(tmp_path / 'other.pth', 'tiny')
    assert cause in str(error.value)
    listed = [line.split(': ', 1)[1] for line in str(error.value).splitlines() if line.startswith('  ')]
    assert listed and all(len(re.findall(r'[a-z0-9_]+\.[\w.]+', line)) <= 2 * 10 for line in listed)


def test_allow_partial_loads_what_fits_and_says_what_did_not(tmp_path, classifier, log):
    state = classifier.state_dict()
    state.pop('stages.1.blocks.0.gamma')
    state['stem.0.bias'] = torch.zeros(3)
    torch.save(state, tmp_path / 'weights.pth')
    model = backbone(tmp_path / 'weights.pth', allow_partial=True)
    loaded = {key for key, value in model.state_dict().items() if key in state and torch.equal(value, state[key])}
    assert {key for key in state if not key.startswith('head.')} - loaded == {'stem.0.bias'}
    assert log[-1].startswith('WARNING') and '1 missing: stages.1.blocks.0.gamma' in log[-1]
    assert 'stem.0.bias (3,), the model has (40,)' in log[-1]
    assert torch.equal(model.stem[0].bias, torch.zeros(40))  # as without a checkpoint
    with pytest.raises(CheckpointError, match='nothing was loaded'):  # nothing at all is no part
        torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'other.pth')
        backbone(tmp_path / 'other.pth', allow_partial=True)


@pytest.mark.parametrize('channels,how', [(1, 'summed'), (4, 'repeated and rescaled'), (6, 'repeated and rescaled')])
def test_the_stem_is_adapted_as_timm_does(tmp_path, classifier, log, channels, how):
    torch.save(classifier.state_dict(), tmp_path / 'weights.pth')
    model = backbone(tmp_path / 'weights.pth', in_channels=channels)
    expected = timm.create_model(
        'inception_next_atto', pretrained=True, in_chans=channels,
        pretrained_cfg_overlay=dict(file=str(tmp_path / 'weights.pth')))
    torch.testing.assert_close(model.stem[0].weight, expected.state_dict()['stem.0.weight'], rtol=0, atol=0)
    assert f'stem adapted from 3 to {channels} channels ({how})' in log[-1]


def test_init_cfg_may_hold_others_beside_it(tmp_path, classifier):
    torch.save(classifier.state_dict(), tmp_path / 'weights.pth')
    model = InceptionNeXt('atto', init_cfg=[
        dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')),
        dict(type='Constant', layer='SyncBatchNorm', val=0.5)])
    model.init_weights()
    assert torch.equal(model.norm2.weight, torch.full((160, ), 0.5))  # new, so by the other config
    assert torch.equal(model.stem[1].weight, classifier.stem[1].weight)  # pretrained comes last, as in MMEngine


@pytest.mark.parametrize('kind', ['mmengine.Pretrained', 'mmengine.model.PretrainedInit', PretrainedInit])
def test_every_name_of_pretrained_is_strict(tmp_path, classifier, kind):
    state = classifier.state_dict()
    torch.save(state, tmp_path / 'weights.pth')
    model = InceptionNeXt('atto', init_cfg=dict(
        type=kind, checkpoint=str(tmp_path / 'weights.pth'), prefix='backbone.'))
    model.init_weights()
    assert torch.equal(model.stem[0].weight, state['stem.0.weight'])
    torch.save(timm.create_model('convnext_atto').state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='ConvNeXt'):
        InceptionNeXt('atto', init_cfg=dict(type=kind, checkpoint=str(tmp_path / 'weights.pth'))).init_weights()


def test_whole_numbers_are_no_weights(tmp_path, classifier):
    state = classifier.state_dict()
    state['stem.0.weight'] = state['stem.0.weight'].to(torch.int8)
    torch.save(state, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'stem.0.weight \(40, 3, 4, 4\) of torch.int8, the model has'):
        backbone(tmp_path / 'weights.pth')


def test_two_trunks_in_one_file_are_refused(tmp_path, classifier):
    state = {f'backbone.{key}': value for key, value in classifier.state_dict().items()}
    torch.save({**state, 'stem.0.weight': torch.zeros(40, 3, 4, 4)}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'beside backbone.\* there are stem.0.weight'):
        backbone(tmp_path / 'weights.pth')


def test_settings_of_init_cfg_are_checked():
    for settings in (dict(), dict(checkpoint='a.pth', allow_part=True)):
        model = InceptionNeXt('atto', init_cfg=dict(type='Pretrained', **settings))
        with pytest.raises(CheckpointError, match='checkpoint and may have allow_partial'):
            model.init_weights()


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(CheckpointError) as error:
        backbone(tmp_path / 'none.pth')
    for words in (f'{tmp_path}/none.pth', 'init_cfg.checkpoint=FILE', 'github.com/sail-sg/inceptionnext', 'timm://'):
        assert words in str(error.value)


def test_files_without_weights_are_named(tmp_path):
    torch.save(dict(epoch=3, model=dict()), tmp_path / 'empty.pth')
    with pytest.raises(CheckpointError, match='empty.pth holds no weights'):
        backbone(tmp_path / 'empty.pth')
