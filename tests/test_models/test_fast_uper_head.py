"""FastUPerHead against stock UPerHead, in value, gradient and state dict."""
import inspect

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmseg.models.decode_heads import UPerHead

from mmseg_inceptionnext.models import FastUPerHead, device_plan

from utils import randomise

SIZES = {'halves': [(32, 48), (16, 24), (8, 12), (4, 6)], 'odd': [(31, 45), (16, 23), (8, 12), (4, 6)],
         'anything': [(20, 20), (13, 7), (6, 9), (3, 2)]}


def heads(dtype=torch.float64, **kwargs):
    settings = dict(
        in_channels=[4, 6, 8, 10], in_index=[0, 1, 2, 3], channels=12, num_classes=5, dropout_ratio=0,
        norm_cfg=dict(type='SyncBN'), align_corners=False)
    settings.update(kwargs)
    stock = randomise(revert_sync_batchnorm(UPerHead(**settings))).to(dtype)
    fast = revert_sync_batchnorm(FastUPerHead(**settings)).to(dtype)
    fast.load_state_dict(stock.state_dict())  # strict, and the other way:
    stock.load_state_dict(fast.state_dict())
    return stock, fast


def inputs_of(sizes, batch, dtype=torch.float64):
    return [torch.randn(batch, c, *size, dtype=dtype, requires_grad=True) for c, size in zip((4, 6, 8, 10), sizes)]


@pytest.mark.parametrize('batch,align_corners,training', [(1, False, False), (3, True, False), (3, False, True)])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize('plan', [device_plan.CPU, device_plan.GPU], ids=['cpu', 'gpu'])
def test_equals_stock(sizes, align_corners, batch, training, plan):
    with device_plan.using_plan(plan):
        compare_with_stock(sizes, align_corners, batch, training)


def test_equals_stock_with_deterministic_algorithms():
    """They are products then, whose gradients are deterministic on a GPU, too."""
    torch.use_deterministic_algorithms(True)
    try:
        compare_with_stock(SIZES['odd'], False, 2, True)
        compare_with_stock(SIZES['anything'], True, 3, True)
    finally:
        torch.use_deterministic_algorithms(False)


def compare_with_stock(sizes, align_corners, batch, training):
    stock, fast = (head.train(training) for head in heads(align_corners=align_corners))
    inputs = inputs_of(sizes, batch)
    expected, result = stock(inputs), fast(inputs)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, [*inputs, *stock.parameters()], grad)
    mine = torch.autograd.grad(result, [*inputs, *fast.parameters()], grad)
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    for a, b in zip(fast.buffers(), stock.buffers()):
        torch.testing.assert_close(a, b)


def test_other_norms_and_activations():
    stock, fast = (head.eval() for head in heads(norm_cfg=None, act_cfg=None))
    inputs = inputs_of(SIZES['odd'], 2)
    torch.testing.assert_close(fast(inputs), stock(inputs), rtol=1e-9, atol=1e-9)


def test_feature_selection_and_order():
    stock, fast = (head.eval() for head in heads(in_index=[1, 2, 3, 4]))
    inputs = [torch.zeros(1), *inputs_of(SIZES['halves'], 1)]
    torch.testing.assert_close(fast(inputs), stock(inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """Mixed precision stays as close to float64 as the stock head does."""
    stock, fast = (head.eval() for head in heads(torch.float32))
    inputs = inputs_of(SIZES['halves'], 2, torch.float32)
    exact = stock(inputs)
    try:
        with torch.autocast('cpu', dtype=dtype):
            theirs, mine = stock(inputs), fast(inputs)
            theirs.sum().backward()
            mine.sum().backward()
    except RuntimeError as error:
        if dtype == torch.float16 and ('mplemented' in str(error) or 'only support Bfloat16' in str(error)):
            pytest.skip(f'this PyTorch has no float16 on a CPU: {error}')
        raise
    assert mine.dtype == theirs.dtype == dtype
    assert (mine - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()
    for a, b in zip(fast.parameters(), stock.parameters()):
        assert a.grad.dtype == torch.float32 and (a.grad - b.grad).norm() < 0.1 * b.grad.norm() + 1e-2


def test_channels_last_inputs_and_outputs():
    stock, fast = (head.eval() for head in heads())
    inputs = inputs_of(SIZES['odd'], 2)
    result = fast([x.contiguous(memory_format=torch.channels_last) for x in inputs])
    torch.testing.assert_close(result, stock(inputs), rtol=1e-9, atol=1e-9)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, 'is_compiling'), reason='this PyTorch cannot tell that it compiles')
def test_torch_compile():
    stock, fast = heads(torch.float32)
    inputs = inputs_of(SIZES['halves'], 2, torch.float32)
    compiled = torch.compile(fast.eval(), backend='aot_eager', fullgraph=True)
    stock.eval()
    torch.testing.assert_close(compiled(inputs), stock(inputs), rtol=1e-4, atol=1e-4)
    compiled(inputs).square().sum().backward()
    stock(inputs).square().sum().backward()
    for a, b in zip(fast.parameters(), stock.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('exporter', [{}, dict(dynamo=True)], ids=['by tracing', 'by torch.export'])
def test_onnx(tmp_path, exporter):
    """For a fixed size; the stock head needs pooled sizes that divide the map, and so does this one."""
    onnxruntime = pytest.importorskip('onnxruntime')
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        exporter = exporter or dict(dynamo=False)
    elif exporter:
        pytest.skip('this PyTorch has no such exporter')
    head = heads(torch.float32)[1].eval()
    inputs = inputs_of([(45, 48), (23, 24), (12, 12), (6, 6)], 1, torch.float32)
    torch.onnx.export(AsArguments(head).eval(), tuple(x.detach() for x in inputs), str(tmp_path / 'head.onnx'),
                      opset_version=17 if not exporter.get('dynamo') else 18, input_names=list('abcd'), **exporter)
    session = onnxruntime.InferenceSession(str(tmp_path / 'head.onnx'), providers=['CPUExecutionProvider'])
    result, = session.run(None, {name: x.detach().numpy() for name, x in zip('abcd', inputs)})
    torch.testing.assert_close(torch.from_numpy(result), head(inputs).detach(), rtol=1e-4, atol=1e-4)


class AsArguments(torch.nn.Module):
    """A head that takes its maps as arguments, since ONNX knows no lists."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, a, b, c, d):
        return self.head([a, b, c, d])
