"""timm's networks with norms on their outputs: timm's maps, and timm's weights when a training asks for them."""
import pytest
import timm
import torch
from mmseg.registry import MODELS

from mmseg_inceptionnext.models.backbones import NormedTIMMBackbone

from utils import randomise


@pytest.mark.parametrize('name,norm', [
    ('convnext_atto', dict(type='LN', eps=1e-6)), ('poolformer_s12', dict(type='GN', num_groups=1)),
    ('resnet18', None)])
def test_outputs_are_timms_and_then_norms(name, norm):
    model = randomise(NormedTIMMBackbone(name, out_norm_cfg=norm, out_indices=(0, 2, 3))).double().eval()
    reference = timm.create_model(name, features_only=True, out_indices=(0, 2, 3)).double().eval()
    reference.load_state_dict(model.timm_model.state_dict())
    x = torch.randn(2, 3, 65, 99, dtype=torch.float64)
    outs = model(x)
    assert isinstance(outs, tuple) and len(outs) == 3
    for i, (out, expected) in enumerate(zip(outs, reference(x))):
        assert norm is None or getattr(model, f'norm{i}').weight.shape == expected.shape[1:2]
        torch.testing.assert_close(out, getattr(model, f'norm{i}')(expected))
        assert norm is None or not torch.equal(out, expected)


@pytest.mark.parametrize('in_channels', [3, 4])
def test_pretrained_weights_come_with_init_weights_only(monkeypatch, in_channels):
    asked, create = [], timm.create_model

    def create_offline(model_name, pretrained=False, **kwargs):
        asked.append((model_name, pretrained))
        torch.manual_seed(5)
        return create(model_name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, 'create_model', create_offline)
    model = MODELS.build(dict(type='NormedTIMMBackbone', model_name='convnext_atto.d2_in1k', pretrained=True,
                              in_channels=in_channels))
    randomise(model)
    assert asked == [('convnext_atto.d2_in1k', False)]
    model.init_weights()
    assert asked[1:] == [('convnext_atto.d2_in1k', True)]
    torch.manual_seed(5)
    expected = create('convnext_atto', features_only=True, in_chans=in_channels)
    for key, value in expected.state_dict().items():
        assert torch.equal(model.timm_model.state_dict()[key], value)


def test_without_pretrained_weights_nothing_is_asked_for(monkeypatch):
    model = NormedTIMMBackbone('convnext_atto')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(timm, 'create_model', None)
    model.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
