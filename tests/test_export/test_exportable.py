"""What goes into the graph of an export, against PyTorch."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models.decode_heads import FPNHead
from mmseg.registry import MODELS
from torch.nn import functional as F

from mmseg_inceptionnext.export.exportable import AveragePool, ExportableSegmentor, argmax_in_strips
from mmseg_inceptionnext.export.onnx_export import trace
from mmseg_inceptionnext.models.winograd import WinogradConv2d

from utils import ROOT, TOY, randomise

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
UPERNET = 'configs/upernet_inceptionnext_a_ade20k.py'


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


def narrow(cfg):
    """For small tests."""
    cfg.model.decode_head.update(channels=32, num_classes=7)
    cfg.model.auxiliary_head.update(channels=8, num_classes=7)


def build(cfg):
    init_default_scope('mmseg')
    return revert_sync_batchnorm(randomise(MODELS.build(cfg.model))).eval()


@pytest.mark.parametrize('kind,align_corners', [
    ('UPerNet', True), ('Semantic FPN', False), *(pytest.param(*values, marks=pytest.mark.slow) for values in (
        ('UPerNet', False), ('Semantic FPN', True), ('stock UPerNet', False), ('stock UPerNet', True)))])
def test_free_sizes_equal_pytorch(tmp_path, kind, align_corners):
    """Odd sizes, maps smaller than the pooled sizes, batches of two; the networks were traced at another size."""
    cfg = Config.fromfile(str(ROOT / (TOY if 'FPN' in kind else UPERNET)))
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.)
    if 'UPerNet' in kind:
        narrow(cfg)
    if 'stock' in kind:
        cfg.model.decode_head.type = 'UPerHead'
    cfg.model.decode_head.align_corners = align_corners
    model = build(cfg)
    for output in ('logits', 'classes'):
        trace(ExportableSegmentor(model, output).eval(), str(tmp_path / 'a.onnx'))
        run = session(tmp_path / 'a.onnx')
        for size in ((1, 128, 160), (2, 97, 131), (1, 64, 96), (1, 225, 67)):
            image = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8)
            result, = run.run(None, dict(image=image.numpy()))
            expected = ExportableSegmentor.logits_of(model, image)
            if output == 'logits':
                assert result.shape == expected.shape
                assert np.abs(result - expected.numpy()).max() < 1e-5 * expected.abs().max()
            else:
                up = F.interpolate(expected, size[1:], mode='bilinear', align_corners=align_corners)
                assert result.dtype == np.uint8 and result.shape == size
                assert (result == up.argmax(1).numpy()).mean() > 0.999


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('small,size', [((9, 7), (97, 131)), ((33, 17), (64, 8)), ((1, 1), (16, 40)), ((5, 6), (5, 6))])
def test_strips_have_the_classes_of_the_resized_logits(small, size, align_corners):
    """Enlarged, reduced, fewer rows than strips, and neither."""
    logits = torch.randn(2, 11, *small, dtype=torch.float64)
    expected = F.interpolate(logits, size, mode='bilinear', align_corners=align_corners).argmax(1)
    result = argmax_in_strips(logits, size, align_corners, torch.uint8)
    assert result.dtype == torch.uint8 and torch.equal(result.long(), expected)


@pytest.mark.slow
def test_strips_need_a_third_of_the_memory(tmp_path):
    """And give the same classes but where two are equal to rounding; each graph in a process of its own."""
    class Classes(torch.nn.Module):
        def __init__(self, strips):
            super().__init__()
            self.strips = strips

        def forward(self, logits, image):
            size = image.shape[2:]
            if self.strips:
                return argmax_in_strips(logits, size, False, torch.uint8)
            return F.interpolate(logits, size, mode='bilinear').argmax(1).to(torch.uint8)

    by_tracing = dict(dynamo=False) if torch.__version__ >= '2.5' else {}
    free = {name: {2: 'h' + name, 3: 'w' + name} for name in ('logits', 'image')}
    program = ('import sys, numpy, onnxruntime\n'
               'peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])\n'
               'session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])\n'
               'logits = numpy.random.default_rng(0).standard_normal((1, 150, 128, 256), numpy.float32)\n'
               'image, before = numpy.zeros((1, 3, 512, 1024), numpy.uint8), peak()\n'
               'result, = session.run(None, dict(logits=logits, image=image))\n'
               'numpy.save(sys.argv[1] + ".npy", result)\n'
               'print(peak() - before)')
    needed, results = [], []
    for strips in (True, False):
        path = tmp_path / f'{strips}.onnx'
        inputs = torch.randn(1, 150, 8, 12), torch.zeros(1, 3, 32, 48, dtype=torch.uint8)
        torch.onnx.export(Classes(strips), inputs, str(path), opset_version=17,
                          input_names=['logits', 'image'], dynamic_axes=free, **by_tracing)
        run = subprocess.run([sys.executable, '-c', program, path], text=True, capture_output=True, check=True)
        needed.append(int(run.stdout))
        results.append(np.load(f'{path}.npy'))
    assert needed[0] < 0.35 * needed[1]
    assert (results[0] == results[1]).mean() > 0.99999


@pytest.mark.parametrize('num_classes,dtype,mark', [
    (7, np.uint8, 255), *(pytest.param(*values, marks=pytest.mark.slow) for values in (
        (255, np.uint8, 255), (256, np.int32, -1)))])
def test_an_image_whose_logits_are_not_finite_gets_no_class(tmp_path, num_classes, dtype, mark):
    """And the others of its batch get theirs."""
    cfg = Config.fromfile(str(ROOT / TOY))
    cfg.model.backbone.update(init_cfg=None)
    cfg.model.decode_head.num_classes = num_classes
    network = ExportableSegmentor(build(cfg), 'classes').eval()
    network.normalise.mean.fill_(0.)
    network.normalise.std.fill_(1e-37)
    trace(network, str(tmp_path / 'a.onnx'))
    image = np.zeros((3, 3, 64, 96), np.uint8)
    image[1] = 200
    result, = session(tmp_path / 'a.onnx').run(None, dict(image=image))
    assert result.dtype == dtype and (result[1] == mark).all()
    assert (result[[0, 2]] >= 0).all() and (result[[0, 2]] < num_classes).all()


@pytest.mark.parametrize('length', [1, 2, 5, 6, 7, 16, 33])
@pytest.mark.parametrize('size', [1, 2, 3, 6])
def test_pooling_is_pytorchs(length, size):
    x = torch.randn(2, 3, length, 9)
    traced = torch.jit.trace(AveragePool(size), torch.randn(1, 3, 11, 13))
    torch.testing.assert_close(traced(x), F.adaptive_avg_pool2d(x, size))


@pytest.mark.parametrize('size', [(1, 1), (4, 4), (5, 9), (16, 12), (31, 33)])
def test_winograd_in_the_graph(tmp_path, size):
    conv = randomise(torch.nn.Conv2d(20, 24, 3, padding=1)).requires_grad_(False)
    module = WinogradConv2d(conv, 20).eval()
    by_tracing = dict(dynamo=False) if torch.__version__ >= '2.5' else {}
    free = {name: {0: 'N', 2: 'H', 3: 'W'} for name in ('x', 'y')}
    torch.onnx.export(module, (torch.randn(1, 20, 8, 12), ), str(tmp_path / 'a.onnx'), opset_version=17,
                      input_names=['x'], output_names=['y'], dynamic_axes=free, **by_tracing)
    assert not any(node.op_type == 'Conv' for node in onnx.load(tmp_path / 'a.onnx').graph.node)
    x = torch.randn(2, 20, *size)
    result, = session(tmp_path / 'a.onnx').run(None, dict(x=x.numpy()))
    expected = conv.double()(x.double()).numpy()
    assert np.abs(result - expected).max() < 5e-6 * np.abs(expected).max()


@pytest.mark.slow
def test_the_large_convolutions_of_single_precision_are_winograds():
    cfg = Config.fromfile(str(ROOT / UPERNET))
    cfg.model.backbone.update(init_cfg=None)
    model = build(cfg)
    for winograd, expected in ((True, ['fpn_bottleneck', 'fpn_convs.0', 'fpn_convs.1', 'fpn_convs.2']), (False, [])):
        network = ExportableSegmentor(model, winograd=winograd)
        assert sorted(name[5:-5] for name, module in network.named_modules()
                      if isinstance(module, WinogradConv2d)) == expected
    assert not any(isinstance(module, WinogradConv2d) for module in model.modules())


def test_heads_with_a_prediction_of_their_own_are_refused():
    class OwnHead(FPNHead):
        def predict_by_feat(self, seg_logits, batch_img_metas):
            return -seg_logits

    cfg = Config.fromfile(str(ROOT / TOY))
    model = build(cfg)
    model.decode_head.__class__ = OwnHead
    with pytest.raises(ValueError, match='OwnHead does more to its logits than to resize them'):
        ExportableSegmentor(model)
