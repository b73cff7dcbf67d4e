"""Pretrained weights load whole or not at all."""
import pytest
import timm
import torch

from mmseg_inceptionnext.models import InceptionNeXt

from utils import randomise


@pytest.fixture
def classifier():
    return randomise(timm.create_model('inception_next_atto'))


def backbone(path, **kwargs):
    model = InceptionNeXt('atto', init_cfg=dict(type='Pretrained', checkpoint=str(path)), **kwargs)
    model.init_weights()
    return model


@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model'])
@pytest.mark.parametrize('kwargs', [{}, dict(out_norm_cfg=None), dict(out_indices=(0, 2))])
def test_a_classifier_gives_its_trunk(tmp_path, classifier, wrapper, kwargs):
    state = classifier.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / 'weights.pth')
    model = backbone(tmp_path / 'weights.pth', **kwargs)
    trunk = {key: value for key, value in model.state_dict().items() if not key.startswith('norm')}
    assert len(trunk) > 100
    for key, value in trunk.items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize('spoil,words', [
    (lambda s: s.pop('stages.1.blocks.0.gamma'), ['1 missing: stages.1.blocks.0.gamma']),
    (lambda s: s.update(extra=torch.zeros(1)), ['1 unexpected: extra']),
    (lambda s: s.update({'stem.1.bias': torch.zeros(3)}), ['1 of another shape: stem.1.bias (3,)', '(40,)']),
    (lambda s: s.update({'stem.2.bias': s.pop('stem.1.bias')}), ['missing: stem.1.bias', 'unexpected: stem.2.bias']),
])
def test_a_checkpoint_that_does_not_fit_loads_nothing(tmp_path, classifier, spoil, words):
    state = classifier.state_dict()
    spoil(state)
    torch.save(state, tmp_path / 'weights.pth')
    model = InceptionNeXt('atto', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuntimeError) as error:
        model.init_weights()
    assert all(word in str(error.value) for word in [*words, 'weights.pth', 'nothing was loaded']), error.value
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_another_arch_is_refused(tmp_path):
    torch.save(timm.create_model('inception_next_tiny').state_dict(), tmp_path / 'tiny.pth')
    with pytest.raises(RuntimeError, match='of another shape: stem.0.weight'):
        backbone(tmp_path / 'tiny.pth')
