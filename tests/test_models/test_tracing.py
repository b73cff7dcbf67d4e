"""TorchScript, torch.export, torch.fx, ONNX, copies, files, half precision and the meta device.

Of models with our head, as of those with the stock one, and of the backbone alone.
"""
import copy
import inspect
import io

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.models import InceptionNeXt, device_plan
from mmseg_inceptionnext.models.fuse import convolve_by_winograd
from mmseg_inceptionnext.models.winograd import WinogradConv2d

from utils import randomise

BN, DIMS = dict(type='BN'), [8, 16, 24, 32]
ARCH = dict(depths=(1, 1, 1, 1), dims=DIMS)
SIZE = 1, 64, 96  # traced
OTHERS = (2, 64, 96), (1, 96, 128), (3, 77, 131)
HEADS = {'stock': dict(type='UPerHead'), 'fast': dict(type='FastUPerHead'),
         'corners': dict(type='FastUPerHead', align_corners=True),
         'FPN': dict(type='FPNHead', feature_strides=[4, 8, 16, 32])}


def build(head, dtype=torch.float64, **backbone):
    init_default_scope('mmseg')
    if head == 'none':
        return randomise(InceptionNeXt(ARCH, norm_cfg=BN, out_norm_cfg=BN)).to(dtype).eval()
    cfg = Config(dict(model=dict(
        type='MemoryEfficientEncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(type='InceptionNeXt', arch=ARCH, norm_cfg=BN, out_norm_cfg=BN, **backbone),
        decode_head=dict(dict(in_channels=DIMS, in_index=[0, 1, 2, 3], channels=16, num_classes=5, norm_cfg=BN,
                              align_corners=False), **HEADS[head]), test_cfg=dict(mode='whole'))))
    return randomise(MODELS.build(cfg.model)).to(dtype).eval()


def images(size=SIZE, dtype=torch.float64):
    n, height, width = size
    return torch.randn(n, 3, height, width, dtype=dtype)


def traced(model, *args):
    """After a way through a file."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, *args), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize('fused', [False, True], ids=['plain', 'fused'])
@pytest.mark.parametrize('head', ['none', *HEADS])
def test_torchscript(head, fused):
    model = fuse(build(head)) if fused else build(head)
    with torch.no_grad():
        loaded = traced(model, images())
        for size in (SIZE, OTHERS[0]) if head == 'FPN' else (SIZE, *OTHERS):  # FPNHead keeps the traced heights
            x = images(size)
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-9, atol=1e-9)


def test_torchscript_with_gradients():
    """Traced as PyTorch does by default, and recomputing blocks, which leaves the file no other than without."""
    model = build('fast', with_cp=True)
    loaded, x = traced(model, images()), images(OTHERS[1]).requires_grad_()
    mine, = torch.autograd.grad(loaded(x).square().sum(), x)
    expected, = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(mine, expected, rtol=1e-7, atol=1e-9)


def test_torchscript_of_a_wrapper_under_autocast():
    class Classes(nn.Module):

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            logits = self.model(x)
            return logits.argmax(1), logits

    model = build('fast', torch.float32)
    x = images(dtype=torch.float32)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, cache_enabled=False):
        classes, result = traced(Classes(model), x)(x)
        expected = model(x)
    exact = model(x)
    assert result.dtype == expected.dtype == torch.bfloat16 and torch.equal(classes, result.argmax(1))
    assert (result - exact).abs().mean() < 1.5 * (expected - exact).abs().mean()


def test_torchscript_leaves_out_what_is_for_a_cpu_or_deterministic():
    """Winograd's method, parts of rows, and products in place of resizing; all of these know the size of the maps."""
    model = fuse(build('fast', torch.float32))
    convolve_by_winograd(model, lambda conv, num_inputs: WinogradConv2d._suits(conv, num_inputs, 1))
    assert any(isinstance(module, WinogradConv2d) for module in model.modules())
    torch.use_deterministic_algorithms(True)
    try:
        with torch.no_grad(), device_plan.using_plan(device_plan.CPU._replace(mlp_bytes=2**12)):
            loaded = traced(model, images(dtype=torch.float32))
            for size in (SIZE, *OTHERS):
                x = images(size, torch.float32)
                torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-4)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not hasattr(torch.compiler, 'is_compiling'), reason='this PyTorch cannot tell that it exports')
@pytest.mark.parametrize('head', ['none', 'stock', 'fast', 'FPN'])
@pytest.mark.slow
def test_torch_export(head):
    model = build(head)
    free = {0: torch.export.Dim('n', max=8)}
    if head != 'FPN' and hasattr(torch.export.Dim, 'AUTO'):
        free.update({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO})
    with torch.no_grad():
        program = torch.export.export(model, (images(OTHERS[0]), ), dynamic_shapes=(free, ))
        for size in (OTHERS[0], (3, 64, 96), *((4, 96, 128), ) * (len(free) > 1)):
            x = images(size)
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-9, atol=1e-9)


def test_onnx_of_the_backbone(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    model, path = fuse(build('none', torch.float32)), str(tmp_path / 'a.onnx')
    by_tracing = dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(model, (images(dtype=torch.float32), ), path, input_names=['image'], opset_version=17,
                      dynamic_axes=dict(image={0: 'n', 2: 'h', 3: 'w'}), **by_tracing)
    x = images(OTHERS[2], torch.float32)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    with torch.no_grad():
        for result, expected in zip(session.run(None, dict(image=x.numpy())), model(x)):
            torch.testing.assert_close(torch.from_numpy(result), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('head', ['stock', 'fast'])
def test_torch_fx(head):
    model = build(head)
    with torch.no_grad():
        graph = torch.fx.symbolic_trace(model.decode_head)
        for size in (SIZE, *OTHERS):
            maps = model.extract_feat(images(size))
            torch.testing.assert_close(graph(maps), model.decode_head(maps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('fused', [False, True], ids=['plain', 'fused'])
@pytest.mark.parametrize('head', ['none', 'fast', 'FPN'])
def test_copies_and_files(head, fused):
    model = fuse(build(head)) if fused else build(head)
    file, x = io.BytesIO(), images(OTHERS[2])
    torch.save(model, file)
    file.seek(0)
    with torch.no_grad():
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize('head', ['none', 'fast', 'FPN'])
def test_built_on_the_meta_device(head):
    model, x = build(head), images()
    with torch.device('meta'):
        other = build(head)
    assert all(tensor.is_meta for tensor in other.state_dict().values())
    with torch.no_grad():
        assert [part.shape for part in other(x.to('meta'))] == [part.shape for part in model(x)]
        other.load_state_dict(model.state_dict(), assign=True)
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize('fused', [False, True], ids=['plain', 'fused'])
@pytest.mark.parametrize('dtype,error', [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
@pytest.mark.parametrize('head', ['none', 'fast', 'FPN'])
def test_half_precision(head, dtype, error, fused):
    try:
        nn.Conv2d(1, 1, 1, dtype=dtype)(torch.ones(1, 1, 1, 1, dtype=dtype))
    except RuntimeError as failure:
        pytest.skip(f'this PyTorch has no such convolution on CPUs: {failure}')
    model, x = build(head, torch.float32), images(OTHERS[0], torch.float32)
    expected = model(x)
    results = (fuse(model) if fused else model).to(dtype)(x.to(dtype))
    for result, wanted in zip(results, expected) if head == 'none' else [(results, expected)]:
        assert result.dtype == dtype and (result.float() - wanted).abs().max() < error * wanted.abs().max()
