"""What is right on a CPU, on a GPU: run by ``make test-gpu``, skipped where there is none. See fake_cuda.py, too."""
import copy
import tempfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import distributed

from mmseg_inceptionnext import Segmenter, fuse
from mmseg_inceptionnext.analysis.benchmark import measure_memory
from mmseg_inceptionnext.analysis.measure import isolated
from mmseg_inceptionnext.analysis.stock import stock_model_cfg
from mmseg_inceptionnext.analysis.variants import STOCK_SETTINGS, stock_variants
from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.export.onnx_export import ExportSettings, export_onnx
from mmseg_inceptionnext.models.compiled import compile_model

from utils import ROOT, content, narrow, randomise, short_config, total_loss

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE == 'cpu', reason='needs a GPU with CUDA')]

FAMILIES = ('upernet', 'fpn')


@pytest.fixture(autouse=True)
def exact():
    """No TF32; what a test switches on is off after it."""
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


def model_cfg(family):
    cfg = Config.fromfile(ROOT / f'configs/{family}_inceptionnext_a_ade20k.py').model
    narrow(cfg)
    cfg.backbone.update(init_cfg=None, drop_path_rate=0.)
    cfg.data_preprocessor.size = None
    for head in [cfg.decode_head, *([cfg.auxiliary_head] if family == 'upernet' else [])]:
        head.update(num_classes=7, dropout_ratio=0)
    if family == 'upernet':
        cfg.decode_head.channels = 24
    return cfg


def pair(family, dtype=torch.float32):
    """Stock and ours with the same random weights."""
    cfg = model_cfg(family)
    stock = randomise(revert_sync_batchnorm(MODELS.build(stock_model_cfg(cfg)))).to(dtype)
    ours = revert_sync_batchnorm(MODELS.build(cfg)).to(dtype)
    ours.load_state_dict(stock.state_dict())
    return stock.to(DEVICE), ours.to(DEVICE)


def batch(dtype=torch.float32, size=(75, 101)):
    labels = torch.randint(7, (3, 1, *size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    meta = dict(ori_shape=(90, 131), img_shape=size, pad_shape=size)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label.to(DEVICE)), metainfo=meta) for label in labels]
    return torch.randn(3, 3, *size, dtype=dtype, device=DEVICE), samples


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('dtype,rtol', [(torch.float64, 1e-8), (torch.float32, 2e-3)], ids=['float64', 'float32'])
def test_equals_stock(family, dtype, rtol):
    stock, ours = pair(family, dtype)
    inputs, samples = batch(dtype)
    theirs, mine = stock.train().loss(inputs, samples), ours.train().loss(inputs, samples)
    for key in theirs:
        torch.testing.assert_close(mine[key], theirs[key].to(mine[key]), rtol=max(rtol, 1e-5), atol=1e-5)
    total_loss(theirs).backward()
    total_loss(mine).backward()
    for (key, a), b in zip(ours.named_parameters(), stock.parameters()):
        assert (a.grad - b.grad).norm() <= rtol * b.grad.norm() + 1e-5, key
    ours.load_state_dict(stock.state_dict())
    for test_cfg in (dict(mode='whole'), dict(mode='slide', crop_size=(64, 64), stride=(40, 48), batch_size=3)):
        for model in (stock.eval(), ours.eval()):
            model.test_cfg = Config(test_cfg)
        with torch.no_grad():
            expected = stock.predict(inputs, copy.deepcopy(samples))
            for model in (ours, fuse(ours)):
                for a, b in zip(model.predict(inputs, copy.deepcopy(samples)), expected):
                    equal = (a.pred_sem_seg.data == b.pred_sem_seg.data).double().mean()
                    assert equal == 1 if dtype == torch.float64 else equal > 0.999


@pytest.mark.parametrize('amp', ['fp16', 'bf16'])
@pytest.mark.parametrize('family', FAMILIES)
def test_mixed_precision(family, amp, toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path)
    if family == 'upernet':
        with_upernet(cfg)
    train(cfg, amp=amp)
    state = content(tmp_path / 'iter_3.pth')['state_dict']
    assert all(value.dtype != torch.float16 and torch.isfinite(value).all() for value in state.values())


def with_upernet(cfg):
    """The toy config with UPerNet."""
    upernet = model_cfg('upernet')
    for head in (upernet.decode_head, upernet.auxiliary_head):
        head.num_classes = cfg.model.decode_head.num_classes
    upernet.data_preprocessor = cfg.model.data_preprocessor
    cfg.model = upernet


def test_a_deterministic_run_resumes_exactly(toy_root, tmp_path):
    for name, iterations in (('whole', [4]), ('parts', [2, 4])):
        for i, max_iters in enumerate(iterations):
            cfg = short_config(toy_root, tmp_path / name, max_iters=max_iters, val_interval=10)
            with_upernet(cfg)
            cfg.randomness = dict(seed=3)
            train(cfg, deterministic=True, resume=i > 0)
    whole, parts = (content(tmp_path / name / 'iter_4.pth')['state_dict'] for name in ('whole', 'parts'))
    assert all(torch.equal(parts[key], value) for key, value in whole.items())


def test_processes_and_their_batch_norm(tmp_path):
    """NCCL, with one process."""
    with tempfile.NamedTemporaryFile() as store:
        distributed.init_process_group(
            'nccl' if DEVICE == 'cuda' else 'gloo', init_method=f'file://{store.name}', rank=0, world_size=1)
        try:
            model = randomise(MODELS.build(model_cfg('upernet'))).to(DEVICE).train()
            single = revert_sync_batchnorm(copy.deepcopy(model))
            wrapped = torch.nn.parallel.DistributedDataParallel(Loss(model))
            inputs, samples = batch()
            total_loss(wrapped(inputs, samples)).backward()
            total_loss(single.loss(inputs, samples)).backward()
            for (key, a), b in zip(model.named_parameters(), single.parameters()):
                assert (a.grad - b.grad).norm() <= 2e-3 * b.grad.norm() + 1e-5, key
        finally:
            distributed.destroy_process_group()


class Loss(torch.nn.Module):
    """A segmentor whose forward is its loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, samples):
        return self.model.loss(inputs, samples)


@pytest.mark.parametrize('family', FAMILIES)
def test_compiled(family):
    _, model = pair(family)
    compiled = compile_model(copy.deepcopy(model))
    inputs, samples = batch()
    for each in (model, compiled):
        total_loss(each.train().loss(inputs, samples)).backward()
    for (key, a), b in zip(compiled.named_parameters(), model.parameters()):
        assert (a.grad - b.grad).norm() <= 2e-3 * b.grad.norm() + 1e-5, key


def test_from_training_to_the_exported_file(toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path, few_channels=False)
    train(cfg, auto_scale_lr=True)
    cfg.dump(str(tmp_path / 'config.py'))
    checkpoint = str(tmp_path / 'iter_3.pth')
    assert 0 <= evaluate(load_config(str(tmp_path / 'config.py'), work_dir=str(tmp_path)), checkpoint)['mIoU'] <= 100
    images = sorted(map(str, (toy_root / 'images/validation').iterdir()))
    expected = Segmenter(checkpoint, device='cpu')(images)
    for options in (dict(), dict(fuse_model=True), dict(fuse_model=True, compile=True), dict(amp='bf16', batch_size=2)):
        results = Segmenter(checkpoint, device=DEVICE, **options)(images)
        equal = np.mean([(a.mask == b.mask).mean() for a, b in zip(results, expected)])
        assert equal > (0.9 if options.get('amp') else 0.999), options
    export_onnx(str(tmp_path / 'config.py'), checkpoint, str(tmp_path / 'model.onnx'), images, ExportSettings())


@pytest.mark.parametrize('mode,batch_size,ratio', [('train', 2, 0.65), ('predict', 1, 0.4)])
def test_peak_memory(mode, batch_size, ratio):
    """Above the weights; the sizes of InceptionNeXt-T and UPerNet as they are trained."""
    config = str(ROOT / 'configs/upernet_inceptionnext_t_ade20k.py')
    settings = STOCK_SETTINGS[mode]._replace(batch_size=batch_size)
    stock, ours = (isolated(measure_memory, variant, settings) for variant in stock_variants(config, mode)[:2])
    assert ours <= ratio * stock, (ours / 2**20, stock / 2**20)
