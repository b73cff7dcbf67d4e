"""fuse() folds what runs one after the other, whatever the order in which that is registered; outputs stay the same."""
import copy

import pytest
import timm
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.models import FastUPerHead
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

from stock_heads import ALL, BN, DIMS, INCEPTIONNEXT, LAST, PLAIN, STOCK, segmentor
from utils import ROOT


def with_body(body):
    """A segmentor with a module of 32 channels before the classifier."""
    model = segmentor(dict(PLAIN, **LAST))
    model.decode_head.convs = nn.Sequential(body, nn.Conv2d(32, 16, 3, padding=1))  # which takes no norm before it
    for module in body.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias)
    return model.double().eval()


def norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def logits(model, size=(96, 128), batch=2):
    image = torch.randn(batch, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # of the bases of LightHamHead
    with torch.no_grad():
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)
        return model.encode_decode(image, [meta] * batch)


def assert_same(model, **kwargs):
    expected, fused = logits(model, **kwargs), fuse(model)
    assert expected.std() > 0
    torch.testing.assert_close(logits(fused, **kwargs), expected, rtol=1e-9, atol=1e-9)
    return fused


@pytest.mark.parametrize('head', STOCK.values(), ids=list(STOCK))
def test_heads_of_mmsegmentation(in_float64, head):
    assert_same(segmentor(head))


def test_dynamic_filters():
    """The norm, registered after a convolution, runs after another operation, and a view needs contiguous maps."""
    model = segmentor(STOCK['dynamic filters'])
    fused = assert_same(model)
    assert norms(fused.decode_head) >= 2 and norms(fused.backbone) < norms(model.backbone)


def test_a_head_that_pools_large_maps():
    model = segmentor(dict(type='LRASPPHead', in_channels=[32, 24, 8], in_index=[3, 2, 0], branch_channels=(8, 16),
                           input_transform='multiple_select'))
    assert norms(assert_same(model, size=(256, 256)).decode_head) == norms(model.decode_head)
    model.data_preprocessor.size = (256, 256)  # that of the images in training
    assert norms(assert_same(model, size=(256, 256)).decode_head) == 0


def test_cascades():
    heads = [dict(type='FCNHead', num_convs=1, **LAST),
             dict(type='OCRHead', ocr_channels=8, **LAST)]
    model = segmentor(heads, kind='CascadeEncoderDecoder', num_stages=2)
    assert norms(assert_same(model).decode_head) == 0


BACKBONES = {
    'ResNet': (dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=BN), 64),
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.5, out_indices=(5, 6), norm_cfg=BN), 160),
    'BiSeNetV2': (dict(type='BiSeNetV2', detail_channels=(8, 8, 16), semantic_channels=(8, 8, 16, 16), bga_channels=16,
                       out_indices=(0, ), norm_cfg=BN), 16),
    'CGNet': (dict(type='CGNet', num_channels=(8, 16, 32), num_blocks=(1, 1), dilations=(1, 2), reductions=(2, 4),
                   norm_cfg=BN), 64),
    'ERFNet': (dict(type='ERFNet', enc_downsample_channels=(8, 16, 32), enc_non_bottleneck_channels=(16, 32),
                    dec_upsample_channels=(16, 8), dec_non_bottleneck_channels=(16, 8), norm_cfg=BN), 8),
    'timm': (dict(type='TIMMBackbone', model_name='resnet10t', pretrained=False), 512),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_of_mmsegmentation(name):
    backbone, channels = BACKBONES[name]
    model = segmentor(dict(PLAIN, in_channels=channels, in_index=-1), backbone)
    assert norms(assert_same(model).decode_head) == 0


@pytest.mark.parametrize('kind', ['DDR', 'PID'])
def test_networks_whose_norms_come_first(kind):
    backbone = dict(type=f'{kind}Net', channels=8, ppm_channels=8, norm_cfg=BN)
    assert_same(segmentor(dict(type=f'{kind}Head', in_channels=32), backbone))


class Own(nn.Module):
    """Modules and what is done with them."""

    def __init__(self, run, **modules):
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.run(self, x)


def conv3(**kwargs):
    return nn.Conv2d(32, 32, 3, padding=1, **kwargs)


def bn(**kwargs):
    return nn.BatchNorm2d(32, **kwargs)


def module(**kwargs):
    return ConvModule(32, 32, 3, padding=1, norm_cfg=BN, **kwargs)


def one_by_one(body, x):
    """As some backbones return the map of each layer."""
    results = [x]
    for layer in body.layers:
        results.append(layer(results[-1]))
    return sum(results)


def two_modules_with_one_convolution():
    body = nn.Sequential(module(), module())
    body[1].conv = body[0].conv
    return body


def one_norm_in_two_modules():
    body = nn.Sequential(module(), module())
    body[1].bn = body[0].bn
    return body


def in_train_mode():
    """A norm that always takes the statistics of its input."""
    norm = bn()
    norm.eval = norm.train = lambda *_: norm
    return nn.Sequential(conv3(), norm)


def before_a_list():
    body = Own(lambda self, x: self.kept[1](self.kept[0](x)), conv=conv3(), norm=bn())
    body.kept = [body.conv, body.norm]
    return body


KEPT = {  # modules of which no norm may be folded
    'norm first': lambda: Own(lambda self, x: self.conv(self.norm(x)), conv=conv3(), norm=bn()),
    'something between': lambda: Own(lambda self, x: self.norm(self.conv(x) * x), conv=conv3(), norm=bn()),
    'result taken twice': lambda: Own(lambda self, x: self.norm(y := self.conv(x)) + y, conv=conv3(), norm=bn()),
    'result changed in place': lambda: Own(lambda self, x: self.norm(self.conv(x).relu_()), conv=conv3(), norm=bn()),
    'convolution run twice': lambda: Own(
        lambda self, x: self.norm(self.conv(x)) + self.conv(x.flip(2)), conv=conv3(), norm=bn()),
    'convolution shared by norms': lambda: Own(
        lambda self, x: self.a(self.conv(x)) + self.b(self.conv(x.flip(2))), conv=conv3(), a=bn(), b=bn()),
    'result taken by two norms': lambda: Own(
        lambda self, x: self.a(y := self.conv(x)) + self.b(y), conv=conv3(), a=bn(), b=bn()),
    'weight taken elsewhere': lambda: Own(
        lambda self, x: self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1), conv=conv3(), norm=bn()),
    'statistics taken elsewhere': lambda: Own(
        lambda self, x: self.norm(self.conv(x)) + self.norm.running_mean.sum(), conv=conv3(), norm=bn()),
    'layers of a Sequential one by one': lambda: Own(one_by_one, layers=nn.Sequential(conv3(), bn(), nn.ReLU())),
    'parts of a ConvModule': lambda: Own(
        lambda self, x: self.conv.norm(y := self.conv(x, norm=False, activate=False)) + y, conv=module()),
    'ConvModule, norm first': lambda: module(order=('norm', 'act', 'conv')),
    'ConvModule, norm last': lambda: module(order=('conv', 'act', 'norm')),
    'ConvModule, spectral norm': lambda: module(with_spectral_norm=True),
    'ConvModules with one convolution': two_modules_with_one_convolution,
    'ConvModules with one norm': one_norm_in_two_modules,
    'weight norm': lambda: nn.Sequential(nn.utils.weight_norm(conv3()), bn()),
    'parametrised': lambda: nn.Sequential(parametrizations.spectral_norm(conv3()), bn()),
    'standardised weights': lambda: nn.Sequential(timm.layers.StdConv2d(32, 32, 3, padding=1), bn()),
    'norm with activation': lambda: nn.Sequential(conv3(), timm.layers.BatchNormAct2d(32)),
    'no statistics': lambda: nn.Sequential(conv3(), bn(track_running_stats=False)),
    'norm in train mode': in_train_mode,
    'transposed': lambda: nn.Sequential(nn.ConvTranspose2d(32, 32, 3, padding=1), bn()),
    'sequence with another order': lambda: type('Backwards', (nn.Sequential, ), dict(
        forward=lambda self, x: self[0](self[1](x))))(conv3(), bn()),
}


@pytest.mark.parametrize('body', KEPT.values(), ids=list(KEPT))
def test_what_does_not_run_in_line_is_kept(body):
    model = with_body(body())
    before = norms(model.decode_head)
    assert norms(assert_same(model).decode_head) == before > 0


FOLDED = {  # modules of which every norm is folded
    'registered backwards': lambda: Own(lambda self, x: self.norm(self.conv(x)), norm=bn(), conv=conv3()),
    'without parameters': lambda: nn.Sequential(conv3(), bn(affine=False)),
    'in a list': before_a_list,
    'run twice': lambda: Own(lambda self, x: self.conv(x) + self.conv(x.flip(2)), conv=module()),
    'ConvModules': lambda: nn.Sequential(module(), module(act_cfg=None), module(groups=4, bias=True)),
    "MMCV's own convolution": lambda: module(conv_cfg=dict(type='Conv')),
    'explicit padding': lambda: module(padding_mode='reflect'),
    'circular padding': lambda: module(padding_mode='circular'),
    'norm before a 1x1 convolution': lambda: nn.Sequential(bn(), nn.Conv2d(32, 32, 1)),
    'ReLU': lambda: Own(lambda self, x: self.act(y := self.conv(x)) + self.act(y).sum() + y, conv=nn.Sequential(
        conv3(), bn()), act=nn.ReLU()),
}


@pytest.mark.parametrize('body', FOLDED.values(), ids=list(FOLDED))
def test_what_runs_in_line_is_folded(body):
    model = with_body(body())
    assert norms(model.decode_head) > 0 == norms(assert_same(model).decode_head)


def test_what_hooks_see_stays_the_same():
    seen = []
    model = with_body(nn.Sequential(nn.Sequential(conv3()), bn(), conv3(), bn(), nn.ReLU()))
    body = model.decode_head.convs[0]
    for watched in (body[0], body[3]):
        watched.register_forward_hook(lambda *args: seen.append(args[2]))
    expected = logits(model)
    kept = [x.clone() for x in seen]
    fused = fuse(model)
    seen.clear()
    torch.testing.assert_close(logits(fused), expected, rtol=1e-9, atol=1e-9)
    for mine, before in zip(seen, kept):
        torch.testing.assert_close(mine, before, rtol=1e-9, atol=1e-9)


class OwnHead(BaseDecodeHead):
    """As a project registers it: parts of stock heads, run in an order of its own."""

    def __init__(self, **kwargs):
        super().__init__(input_transform='resize_concat', **kwargs)
        self.last = ConvModule(self.channels, self.channels, 3, padding=1, norm_cfg=self.norm_cfg)
        self.first = ConvModule(self.in_channels, self.channels, 1, norm_cfg=self.norm_cfg, inplace=False)

    def forward(self, inputs):
        x = self.first(self._transform_inputs(inputs))
        return self.cls_seg(self.last(x) + x)


class OwnFastUPerHead(FastUPerHead):
    """Takes what a convolution of the stock head returns before its norm."""

    def _conv_of_resized(self, module, maps):
        return super()._conv_of_resized(module, maps) + module.norm.running_mean.view(1, -1, 1, 1)


@pytest.mark.parametrize('head,left', [(OwnHead, 0), (OwnFastUPerHead, 2)])
def test_heads_of_a_project(head, left):
    model = segmentor(dict(type=head, **ALL))
    assert norms(assert_same(model).decode_head) == left


def test_tied_weights():
    """One of the two keeps them."""
    body = nn.Sequential(conv3(bias=False), bn(), conv3(bias=False), bn())
    body[2].weight = body[0].weight
    assert norms(assert_same(with_body(body)).decode_head) == 1


def test_a_pyramid_whose_convolution_would_suit_winograd():
    """It takes one map at its own size, so that the matrices of all would not fit."""
    dims = [8, 16, 24, 256]
    head = dict(type='FastUPerHead', in_channels=dims, in_index=[0, 1, 2, 3], channels=256, pool_scales=(1, ))
    model = segmentor(head, dict(INCEPTIONNEXT, arch=dict(depths=(1, 1, 1, 1), dims=dims))).float()
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(fuse(model)(x), model(x), rtol=1e-4, atol=1e-4)


def test_blocks_that_share_an_mlp():
    model = segmentor(dict(PLAIN, **LAST), dict(INCEPTIONNEXT, arch=dict(depths=(2, 1, 1, 1), dims=DIMS)))
    first, second = model.backbone.stages[0].blocks
    second.mlp = first.mlp
    assert_same(model)


def test_the_pass_leaves_no_trace():
    """No hooks, no random numbers, no compiled code."""
    model = segmentor(dict(type='FPNHead', feature_strides=[4, 8, 16, 32], **ALL))
    model.decode_head._compiled_call_impl = None  # which can be no more called than what torch.compile puts there
    state = torch.get_rng_state()
    fused = fuse(model, inplace=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in fused.modules())
    assert '_compiled_call_impl' in vars(fused.decode_head)


@pytest.mark.parametrize('name,left', [('upernet_inceptionnext_t_ade20k', 1), ('fpn_inceptionnext_t_ade20k', 0)])
def test_nothing_is_left_to_fold_in_our_configs(name, left):
    cfg = Config.fromfile(str(ROOT / f'configs/{name}.py')).model
    cfg.backbone.init_cfg = None
    model = fuse(without_sync_bn(MODELS.build(cfg)), inplace=True)
    assert norms(model) == left  # the norm of the last map, which the pyramid pooling takes
    assert all(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))
    assert copy.deepcopy(model).decode_head is not model.decode_head


class PredictsWithBoth(MODELS.get('EncoderDecoder')):
    def encode_decode(self, inputs, batch_img_metas):
        maps = self.extract_feat(inputs)
        return sum(head.predict(maps, batch_img_metas, self.test_cfg)
                   for head in (self.decode_head, self.auxiliary_head))


def test_an_auxiliary_head_that_predicts_stays():
    model = segmentor(dict(PLAIN, **LAST), kind=PredictsWithBoth, auxiliary_head=dict(
        PLAIN, in_channels=24, in_index=2, channels=16, num_classes=5, norm_cfg=BN))
    torch.testing.assert_close(logits(fuse(model)), logits(model), rtol=1e-9, atol=1e-9)


class OddPadded(nn.Sequential):
    def forward(self, x):
        x = self[0](x)
        return self[1](F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)))


def test_what_runs_otherwise_at_odd_sizes_is_seen():
    model = with_body(OddPadded(nn.BatchNorm2d(32), nn.Conv2d(32, 32, 2, 2)))
    fused = fuse(model)
    for size in ((64, 64), (96, 96)):
        torch.testing.assert_close(logits(fused, size), logits(model, size), rtol=1e-9, atol=1e-9)
