"""MetaNeXt with other mixers and norms, and its isotropic form."""
import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.models import IsotropicMetaNeXt, MetaNeXt

from utils import assert_equal_stages, randomise

SMALL = dict(depths=(1, 2, 1, 1), dims=(16, 24, 32, 48), token_mixer=dict(type='PartialDWConv2d', kernel_size=5))
MIXERS = [dict(type='InceptionDWConv2d'), dict(type='PartialDWConv2d', conv_ratio=0.25),
          dict(type='SelfAttention2d', head_channels=8)]


def as_metanext(state: dict) -> dict:
    """timm's ConvNeXt, whose MLPs are linear layers, in MetaNeXt's names and shapes."""
    trunk = {key.replace('conv_dw.', 'token_mixer.dwconv.'): value for key, value in state.items()
             if not key.startswith('head.')}
    return {key: value[..., None, None] if value.ndim == 2 else value for key, value in trunk.items()}


def test_convnext_is_a_metanext():
    """The paper's claim, for a small ConvNeXt, with gamma and norms that matter."""
    sizes = dict(depths=(1, 2, 2, 1), dims=(16, 24, 32, 48))
    reference = randomise(timm.create_model('convnext_tiny', **sizes)).double().eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    model = MetaNeXt(**sizes, token_mixer=dict(type='PartialDWConv2d', kernel_size=7, conv_ratio=1.),
                     norm_cfg=dict(type='LN', eps=1e-6), out_norm_cfg=None).double().eval()
    model.load_state_dict(as_metanext(reference.state_dict()))
    assert_equal_stages(model, reference)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='LN'), dict(type='LN', eps=1e-6, requires_grad=True)])
def test_norms_by_config(norm_cfg):
    init_default_scope('mmseg')
    model = randomise(MODELS.build(dict(type='MetaNeXt', norm_cfg=norm_cfg, out_norm_cfg=norm_cfg, **SMALL))).double()
    x = torch.randn(2, 3, 65, 99, dtype=torch.float64)
    out = model(x)[1]
    if norm_cfg['type'] == 'LN':
        assert model.norm1.eps == norm_cfg.get('eps', 1e-5)
        torch.testing.assert_close(out.mean(1), torch.zeros_like(out[:, 0]), rtol=0, atol=1e-9)
    else:
        y = (out - model.norm1.bias.view(-1, 1, 1)) / model.norm1.weight.view(-1, 1, 1)
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(24, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize('mixer', MIXERS, ids=[mixer['type'] for mixer in MIXERS])
@pytest.mark.parametrize('norm', ['BN', 'LN'])
def test_fused_is_equal(mixer, norm):
    norms = dict(norm_cfg=dict(type=norm), out_norm_cfg=dict(type=norm))
    x = torch.randn(3, 3, 65, 99, dtype=torch.float64)
    for model in (MetaNeXt((1, 2, 1, 1), (16, 24, 32, 48), mixer, **norms),
                  IsotropicMetaNeXt(mixer, depth=3, dim=16, patch_size=8, out_indices=(0, 2), **norms)):
        model = randomise(model).double().eval()
        with torch.no_grad():
            fused = fuse(model)
            for out, expected in zip(fused(x), model(x)):
                torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
        assert not any(block.gamma is not None for block in fused.modules() if hasattr(block, 'gamma'))


def isotropic(**kwargs):
    return IsotropicMetaNeXt(**{**dict(token_mixer=MIXERS[0], depth=5, dim=16, out_indices=(1, 3)), **kwargs})


def test_isotropic_is_a_stem_and_blocks():
    model = randomise(isotropic(out_norm_cfg=None)).double().eval()
    x = torch.randn(2, 3, 65, 99, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, model.stem[0].weight, model.stem[0].bias, stride=16)
    expected = []
    for block in model.blocks:
        y = y + block.gamma.view(1, -1, 1, 1) * block.mlp(block.norm(block.token_mixer(y)))
        expected.append(y)
    outs = model(x)
    assert len(model.blocks) == 4 and outs[0].shape == (2, 16, 4, 6)  # the fifth is not needed
    torch.testing.assert_close(outs, (expected[1], expected[3]))


def test_isotropic_checkpointing_changes_nothing():
    grads, x = [], torch.randn(2, 3, 64, 96, dtype=torch.float64)
    source = randomise(isotropic())
    for with_cp in (False, True):
        model = isotropic(with_cp=with_cp).double()
        model.load_state_dict(source.state_dict())
        sum((out * out).sum() for out in model(x)).backward()
        grads.append([*(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-9, atol=1e-9)


def test_isotropic_drop_path_and_initial_values():
    model = isotropic(drop_path_rate=0.4)
    model.init_weights()
    rates = [getattr(block.drop_path, 'drop_prob', 0.) for block in model.blocks]
    torch.testing.assert_close(rates, [0., 0.1, 0.2, 0.3], rtol=1e-6, atol=1e-6)
    assert (model.blocks[0].gamma == 1e-6).all() and abs(model.stem[0].weight.std() - 0.02) < 0.002


def test_isotropic_pretrained_loads_whole_or_not_at_all(tmp_path):
    source = randomise(isotropic(out_norm_cfg=None, out_indices=(4, )))
    torch.save(source.state_dict(), tmp_path / 'trunk.pth')
    model = isotropic(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'trunk.pth')))
    model.init_weights()
    for key, value in source.state_dict().items():
        if not key.startswith('blocks.4.'):
            assert torch.equal(model.state_dict()[key], value)
    with pytest.raises(RuntimeError, match='missing: blocks.2.'):
        torch.save({k: v for k, v in source.state_dict().items() if 'blocks.2.' not in k}, tmp_path / 'trunk.pth')
        isotropic(init_cfg=model.init_cfg).init_weights()


@pytest.mark.parametrize('kwargs,words', [
    (dict(out_indices=(0, 5)), ['out_indices=(0, 5)', 'blocks', 'from 0 to 4']),
    (dict(token_mixer=dict(type='InceptionDWConv2d', branch_ratio=0.01)), ['branch_ratio=0.01']),
])
def test_isotropic_bad_settings_are_named(kwargs, words):
    with pytest.raises(ValueError) as error:
        isotropic(**kwargs)
    assert all(word in str(error.value) for word in words), error.value


def test_isotropic_small_images_are_refused():
    with pytest.raises(ValueError, match='15 x 64 .* at least 16'):
        isotropic()(torch.zeros(1, 3, 15, 64))
