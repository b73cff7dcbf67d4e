"""torch.compile by Inductor, on a model of few blocks: equal values, one graph for each part, any size of image."""
import copy
import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_inceptionnext import Segmenter, fuse
from mmseg_inceptionnext.apis import evaluation, run
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.inference import torch_backend
from mmseg_inceptionnext.models.compiled import compile_model

from utils import ROOT, narrow, randomise, short_config, total_loss

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(not hasattr(torch.compiler, 'is_compiling'), reason='needs PyTorch 2.3')]


def build(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}_inceptionnext_a_ade20k.py').model
    narrow(cfg)
    cfg.backbone.update(init_cfg=None, drop_path_rate=0.)
    cfg.backbone.arch.depths = (1, 1, 1, 1)
    for part in [cfg.decode_head, *([cfg.auxiliary_head] if name == 'upernet' else [])]:
        part.update(num_classes=7, dropout_ratio=0)
    if name == 'upernet':
        cfg.decode_head.channels = 24
    cfg.data_preprocessor.size = None
    return randomise(revert_sync_batchnorm(MODELS.build(cfg))).to('cpu')


@pytest.fixture
def graphs():
    """Counts what torch.compile does in the test."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def compare(model, compiled, sizes):
    with torch.no_grad():
        for n, size in sizes:
            x = torch.randn(n, 3, *size)
            expected, result = model(x), compiled(x)
            assert (result - expected).abs().max() < 1e-5 * expected.abs().max()
            assert len(compiled.predict(x)) == n


@pytest.mark.slow
@pytest.mark.parametrize('name', ['upernet', 'fpn'])
def test_other_sizes_compile_no_more(name, graphs):
    """After a few, which make sizes free; traced only, which is what it depends on.

    Two images: PyTorch convolves a single small one on a CPU in another way, and compiles each by itself.
    """
    n = 2
    model = build(name).eval()
    compiled = compile_model(fuse(model), backend='eager')
    compare(model, compiled, [(n, (64, 96)), (n, (96, 64)), (n, (70, 131)), (n, (96, 96))])
    before = graphs['stats']['unique_graphs']
    assert not graphs['graph_break'] and before <= 3 * (2 + (name == 'fpn'))
    compare(model, compiled, [(n, (128, 128)), (n, (90, 75)), (n, (64, 70)), (n, (150, 130))])
    assert graphs['stats']['unique_graphs'] == before


@pytest.mark.slow
def test_predictions_by_inductor(graphs):
    model = build('fpn').eval()
    compare(model, compile_model(fuse(model)), [(1, (64, 96)), (1, (101, 75)), (1, (70, 131))])
    assert not graphs['graph_break'] and graphs['stats']['unique_graphs'] == 6


@pytest.mark.slow
@pytest.mark.parametrize('name,backend', [('upernet', 'inductor'), ('fpn', 'aot_eager')])
def test_training(name, backend, graphs):
    """Also the gradients of the token mixers, which share their input with the shortcut."""
    model = build(name).train()
    compiled = compile_model(copy.deepcopy(model), backend=backend)
    x = torch.randn(2, 3, 64, 96)
    data = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(7, (1, 64, 96)))) for _ in x]
    expected, losses = model.loss(x, data), compiled.loss(x, data)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-4)
    total_loss(expected).backward()
    total_loss(losses).backward()
    for (key, a), b in zip(compiled.named_parameters(), model.parameters()):
        assert (a.grad - b.grad).norm() < 1e-2 * b.grad.norm() + 1e-5, key
    assert not graphs['graph_break'] and graphs['stats']['unique_graphs'] == 3


def test_an_old_pytorch_is_named(monkeypatch):
    monkeypatch.delattr(torch.compiler, 'is_compiling')
    with pytest.raises(ConfigError, match='--compile needs PyTorch 2.3 or newer, and this is'):
        compile_model(nn.Linear(1, 1))


def test_a_copy_of_a_compiled_model_has_weights_of_its_own():
    """As an average of the weights in training is one."""
    model = compile_model(build('fpn').eval(), backend='eager')
    other = copy.deepcopy(model)
    nn.init.zeros_(other.decode_head.conv_seg.weight)
    nn.init.zeros_(other.decode_head.conv_seg.bias)
    with torch.no_grad():
        assert not other(torch.randn(1, 3, 64, 64)).any()
    assert list(other.state_dict()) == list(build('fpn').state_dict())


@pytest.mark.slow
def test_training_evaluation_and_inference_compile(toy_root, tmp_path, monkeypatch):
    """What the tools call, traced only."""
    compiled = []
    for module in (run, evaluation, torch_backend):
        monkeypatch.setattr(module, 'compile_model', lambda model: compiled.append(compile_model(model, 'eager')))
    cfg = short_config(toy_root, tmp_path)
    run.train(cfg, compiles=True)
    checkpoint = str(tmp_path / 'iter_3.pth')
    evaluation.evaluate(short_config(toy_root, tmp_path), checkpoint, fuse_model=True, compiles=True)
    image = str(next((toy_root / 'images/validation').iterdir()))
    result = Segmenter(checkpoint, compile=True, fuse_model=True)(image)
    assert len(compiled) == 3
    assert (result.mask == Segmenter(checkpoint)(image).mask).mean() > 0.999


@pytest.mark.parametrize('tool,arguments', [
    ('train', ('CONFIG', )), ('test', ('CONFIG', 'CKPT')), ('infer', ('CKPT', 'IMAGE', '--out-dir', 'DIR'))])
def test_the_tools_have_the_option(tool, arguments):
    parse_args = runpy.run_path(str(ROOT / f'tools/{tool}.py'))['parse_args']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'{tool}.py', *arguments, '--compile'])
        assert parse_args().compile is True
