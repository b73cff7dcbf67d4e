"""The backbone against timm's, and what each argument promises."""
import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_inceptionnext.models import InceptionNeXt, MetaNeXt, PartialDWConv2d

from utils import assert_equal_stages, randomise

ARCHS = tuple(InceptionNeXt.arch_settings)
SMALL = dict(depths=(2, 1, 2, 1), dims=(16, 24, 32, 48))
DILATIONS = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}


def trunk(model: nn.Module) -> dict:
    return {key: value for key, value in model.state_dict().items() if not key.startswith('head.')}


def output_strides(outs, height):
    return [round(height / out.shape[-2]) for out in outs]


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('arch,stride', [
    ('atto', 32), ('atto', 16), ('atto', 8), pytest.param('tiny', 8, marks=pytest.mark.slow)])
def test_equals_timm_stage_by_stage(arch, stride, training):
    reference = randomise(timm.create_model(f'inception_next_{arch}', output_stride=stride)).double().train(training)
    model = InceptionNeXt(arch, out_norm_cfg=None, dilations=DILATIONS[stride]).double().train(training)
    model.load_state_dict(trunk(reference))
    sizes = ((2, (97, 131)), ) if training else ((2, (97, 131)), (1, (64, 96)))  # BatchNorm needs more than one value
    assert_equal_stages(model, reference, sizes)
    for key, value in trunk(reference).items():  # the running statistics moved alike
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('arch', ARCHS)
def test_every_arch_has_timms_parameters(arch):
    with torch.device('meta'):
        expected = trunk(timm.create_model(f'inception_next_{arch}'))
        found = InceptionNeXt(arch, out_norm_cfg=None).state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}


def test_gradients_equal_timms():
    reference = randomise(timm.create_model('inception_next_atto')).double()
    model = InceptionNeXt('atto', out_norm_cfg=None).double()
    model.load_state_dict(trunk(reference))
    x = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    weights = [torch.randn_like(out) for out in model(x)]
    for outs in (model(x), reference.forward_intermediates(x, intermediates_only=True)):
        sum((out * weight).sum() for out, weight in zip(outs, weights)).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('short,name', [('a', 'atto'), ('t', 'tiny'), ('s', 'small'), ('b', 'base')])
def test_short_and_long_names_are_one_model(short, name):
    with torch.device('meta'):
        models = [InceptionNeXt(arch) for arch in (short, name)]
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]


def test_strides_of_the_outputs():
    x = torch.zeros(1, 3, 128, 160)
    for stride, dilations in DILATIONS.items():
        outs = InceptionNeXt(SMALL, dilations=dilations).eval()(x)
        assert output_strides(outs, 128) == [min(s, stride) for s in (4, 8, 16, 32)]
        assert [out.shape[1] for out in outs] == list(SMALL['dims'])


def test_output_norms_normalise_each_map():
    model = randomise(InceptionNeXt(SMALL)).double()
    plain = InceptionNeXt(SMALL, out_norm_cfg=None).double()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith('norm')})
    x = torch.randn(3, 3, 65, 99, dtype=torch.float64)
    for i, (out, raw) in enumerate(zip(model(x), plain(x))):
        norm = getattr(model, f'norm{i}')
        mean, var = raw.mean((0, 2, 3), keepdim=True), raw.var((0, 2, 3), unbiased=False, keepdim=True)
        expected = (raw - mean) / (var + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, ), (0, 2)])
@pytest.mark.parametrize('out_norm_cfg', [dict(type='BN'), None])
def test_every_parameter_is_used(out_indices, out_norm_cfg):
    # eval: a BatchNorm that uses the batch's mean cancels the bias before it
    model = randomise(InceptionNeXt(SMALL, out_indices=out_indices, out_norm_cfg=out_norm_cfg)).eval()
    outs = model(torch.randn(2, 3, 64, 64))
    assert isinstance(outs, tuple) and [out.shape[1] for out in outs] == [SMALL['dims'][i] for i in out_indices]
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    names = dict(model.named_parameters())
    assert names and not [name for name, p in names.items() if p.grad is None or not p.grad.abs().sum() > 0]


def test_out_indices_are_not_shared():
    indices = [0, 1]
    model = InceptionNeXt(SMALL, out_indices=indices)
    indices.append(3)
    assert model.out_indices == (0, 1)


def test_out_indices_count_from_the_end_as_timms_do():
    model = InceptionNeXt(SMALL, out_indices=(-3, -1))
    assert model.out_indices == (1, 3) and list(model.out_channels) == [SMALL['dims'][1], SMALL['dims'][3]]
    assert len(InceptionNeXt(SMALL, out_indices=(-2, )).stages) == 3


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
def test_frozen_stages(frozen_stages):
    model = randomise(InceptionNeXt(SMALL, frozen_stages=frozen_stages))
    assert model.train() is model
    frozen = [] if frozen_stages < 0 else ['stem', *(f'stages.{i}' for i in range(frozen_stages))]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    sum((out * torch.randn_like(out)).sum() for out in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    unchanged = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    expected = {key for key in before if any(key.startswith(f'{name}.') for name in frozen)}
    assert unchanged == expected
    modes = {name: m.training for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    assert modes and {name for name, on in modes.items() if not on} == {
        name for name in modes if any(name.startswith(f'{prefix}.') for prefix in frozen)}


def test_norm_eval_keeps_every_statistic():
    model = randomise(InceptionNeXt(SMALL, norm_eval=True)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and model.stages[0].training


def test_checkpointing_changes_neither_values_nor_statistics():
    states, grads = [], []
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    source = randomise(InceptionNeXt(SMALL))
    for with_cp in (False, True):
        model = InceptionNeXt(SMALL, with_cp=with_cp).double()
        model.load_state_dict(source.state_dict())
        for _ in range(2):
            sum((out * out).sum() for out in model(x)).backward()
        states.append(model.state_dict())
        grads.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(states[1], states[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-9, atol=1e-9)


def test_drop_path_grows_linearly_over_all_blocks():
    model = InceptionNeXt('tiny', drop_path_rate=0.34)
    rates = [getattr(block.drop_path, 'drop_prob', 0.) for stage in model.stages for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.34, 18))
    shorter = InceptionNeXt('tiny', drop_path_rate=0.34, out_indices=(0, 1))  # the same rates without the later stages
    assert [getattr(b.drop_path, 'drop_prob', 0.) for s in shorter.stages for b in s.blocks] == rates[:6]


def test_initial_values_are_the_published_ones():
    model = InceptionNeXt('tiny')
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            assert (parameter == 1e-6).all()
        elif parameter.ndim == 4:
            assert abs(parameter.std() - 0.02) < 0.004 and parameter.abs().max() < 0.12, name
        elif name.endswith('bias'):
            assert (parameter == 0).all(), name
        else:
            assert (parameter == 1).all(), name
    without = InceptionNeXt(SMALL, layer_scale_init_value=0)
    assert not any(name.endswith('gamma') for name, _ in without.named_parameters())


def test_other_numbers_of_channels():
    assert InceptionNeXt(SMALL, in_channels=5).eval()(torch.zeros(1, 5, 32, 32))[3].shape == (1, 48, 1, 1)


@pytest.mark.parametrize('kwargs,words', [
    (dict(arch='huge'), ["'huge'", "'t' or 'tiny'"]),
    (dict(arch=dict(depths=(1, 1))), ['needs depths and dims', 'got depths']),
    (dict(arch={**SMALL, 'width': 3}), ['got depths, dims, width']),
    (dict(arch=SMALL, out_indices=(0, 4)), ['out_indices=(0, 4)', 'from 0 to 3']),
    (dict(arch=SMALL, out_indices=()), ['out_indices=()']),
    (dict(arch=SMALL, out_indices=(-5, )), ['-1 to -4']), (dict(arch=SMALL, out_indices=(-1, 1)), ['ascending']),
    (dict(arch=SMALL, init_cfg='x.pth'), ["init_cfg='x.pth'", "dict(type='Pretrained', checkpoint='x.pth')"]),
    (dict(arch=SMALL, out_indices=(2, 1)), ['ascending']),
    (dict(arch=SMALL, frozen_stages=5), ['frozen_stages=5', '1..4']),
    (dict(arch=SMALL, dilations=(1, 1, 2, 2)), ['(1, 1, 2, 2)', '(1, 1, 2, 4)']),
    (dict(arch={**SMALL, 'dims': (16, 24)}), ['dims has 2 entries for 4 stages']),
    (dict(arch={**SMALL, 'band_kernel_size': 10}), ['must be odd', '10']),
    (dict(arch={**SMALL, 'branch_ratio': 0.5}), ['branch_ratio=0.5', '1/3']),
    (dict(arch={**SMALL, 'branch_ratio': 0.01}), ['branch_ratio=0.01', '0 of 16']),
])
def test_bad_settings_are_named(kwargs, words):
    with pytest.raises(ValueError) as error:
        InceptionNeXt(**kwargs)
    assert all(word in str(error.value) for word in words), error.value


def test_small_images_are_refused_with_the_size_they_need():
    model = InceptionNeXt(SMALL)
    with pytest.raises(ValueError, match='31 x 64 .* at least 32'):
        model(torch.zeros(1, 3, 31, 64))
    assert InceptionNeXt(SMALL, out_indices=(0, )).eval()(torch.zeros(1, 3, 31, 64))[0].shape == (1, 16, 7, 16)


def test_it_takes_settings_of_its_mixer_and_other_mixers():
    def mixer(**settings):
        return InceptionNeXt({**SMALL, 'band_kernel_size': 9}, **settings).stages[0].blocks[0].token_mixer

    assert mixer(token_mixer=dict(square_kernel_size=5)).dwconv_hw.kernel_size == (5, 5)
    for settings in (dict(), dict(square_kernel_size=5), dict(type='InceptionDWConv2d')):
        assert mixer(token_mixer=settings).dwconv_w.kernel_size == (1, 9)
    other = mixer(token_mixer=dict(type='PartialDWConv2d', kernel_size=5))
    assert type(other) is PartialDWConv2d and other.dwconv.kernel_size == (5, 5)


def test_metanext_takes_one_mixer_for_each_stage():
    mixers = [dict(type='InceptionDWConv2d', band_kernel_size=k) for k in (11, 9, 7, 5)]
    model = MetaNeXt((1, 1, 1, 1), (16, 24, 32, 48), mixers, mlp_ratios=(4, 4, 4, 3))
    assert [stage.blocks[0].token_mixer.dwconv_w.kernel_size for stage in model.stages] == [
        (1, 11), (1, 9), (1, 7), (1, 5)]
    assert [stage.blocks[0].mlp.fc1.out_channels for stage in model.stages] == [64, 96, 128, 144]
