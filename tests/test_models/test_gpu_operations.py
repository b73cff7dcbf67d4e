"""On a GPU each operation is a launch or more, and a copy to it or a value that the host wants stops it.

Both are counted here, against stock, on a machine without a GPU; see fake_cuda.py.
"""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.analysis.stock import build_pair, stock_model_cfg
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import device_plan, interpolation
from mmseg_inceptionnext.models.decode_heads import fast_uper_head, upsampled_conv
from mmseg_inceptionnext.models.fuse import cast_convolutions
from mmseg_inceptionnext.models.segmentors import slide, tiled_loss

from fake_cuda import Operations, fake_mode, operations_of, to_fake_cuda
from utils import ROOT, narrow, total_loss

pytestmark = pytest.mark.skipif(
    not hasattr(torch, 'get_autocast_dtype'), reason='this PyTorch cannot set autocast for a device that it lacks')

DTYPES = [None, torch.bfloat16, torch.float16]
SLIDE = Config(dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
KEPT = (interpolation.blocks, fast_uper_head._pooling_kept, upsampled_conv._blocks, slide._counts,
        tiled_loss._class_weight)
NOT_DETERMINISTIC = (
    'adaptive_avg_pool', 'upsample_bilinear', 'nll_loss2d', 'scatter_add', 'scatter_reduce', 'index_add')


@pytest.fixture(scope='module')
def fake():
    """The mode of fake tensors, of which none is kept for other tests."""
    clear()
    yield fake_mode()
    clear()


def clear():
    for function in KEPT:
        function.cache_clear()


def config(family):
    return load_config(str(ROOT / f'configs/{family}_inceptionnext_t_ade20k.py')).copy()


@pytest.fixture(scope='module', params=['upernet', 'fpn'])
def models(request, fake):
    """Stock, ours, ours fused, and that for bfloat16, on a fake GPU."""
    with device_plan.using_plan(device_plan.GPU):
        stock, ours = build_pair(config(request.param))
        fused = fuse(ours.to('cpu'))
        cast = cast_convolutions(copy.deepcopy(fused), torch.bfloat16)
    return [to_fake_cuda(model, fake) for model in (stock, ours, fused, cast)]


def prediction(model, size=(512, 512), original=(512, 683), **test_cfg):
    meta = dict(ori_shape=original, img_shape=size, pad_shape=size)

    def predict():
        model.test_cfg = Config(dict(dict(mode='whole'), **test_cfg))
        images = torch.empty(2, 3, *size, device='cuda')
        with torch.no_grad():
            return model.eval().predict(images, [SegDataSample(metainfo=dict(meta)) for _ in images])

    return predict


def loss(model):

    def find():
        labels = torch.zeros(2, 1, 512, 512, dtype=torch.int64, device='cuda')
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        return model.train().loss(torch.empty(2, 3, 512, 512, device='cuda'), samples)

    return find


def assert_few(ours, stock, ratio):
    assert stock.total > 200 and not ours.copies and not ours.waits, (ours.copies, ours.waits)
    assert ours.total <= ratio * stock.total, f'{ours.total} for {stock.total}: {ours.names - stock.names}'


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_a_prediction(models, fake, dtype):
    stock, ours, fused = (operations_of(prediction(model), fake, dtype) for model in models[:3])
    assert_few(ours, stock, 1.2)
    assert_few(fused, ours, 1)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_sliding_windows_wait_for_nothing(models, fake, dtype):
    found = operations_of(prediction(models[1], (512, 1024), (600, 1200), **SLIDE), fake, dtype)
    assert not found.copies and not found.waits and found.total > 1000


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_a_loss(models, fake, dtype):
    stock, ours = (operations_of(loss(model), fake, dtype) for model in models[:2])
    assert_few(ours, stock, 1.3)


def test_mixed_precision_casts_the_weights_of_a_fused_model_once(models, fake):
    stock, _, _, cast = models
    found, expected = (operations_of(prediction(model), fake, torch.bfloat16) for model in (cast, stock))
    assert_few(found, expected, 0.6)


def test_no_operation_of_a_loss_lacks_a_deterministic_way(models, fake):
    """By PyTorch's list for ``torch.use_deterministic_algorithms``; UPerNet's and the losses' own."""
    stock, ours = models[:2]
    torch.use_deterministic_algorithms(True)
    try:
        found = operations_of(loss(ours), fake)
    finally:
        torch.use_deterministic_algorithms(False)
    without = [name for name in found.names if any(words in name for words in NOT_DETERMINISTIC)]
    assert not without
    assert any('nll_loss2d' in name for name in operations_of(loss(stock), fake).names)


@pytest.fixture(scope='module', params=['upernet', 'fpn'])
def narrow_models(request):
    """Stock and ours on the CPU, with few channels, which do not count here."""
    cfg = config(request.param).model
    narrow(cfg)
    cfg.decode_head.channels = 24
    cfg.backbone.update(init_cfg=None)
    cfg.backbone.arch.depths = (3, 3, 9, 3)
    with device_plan.using_plan(device_plan.GPU):
        return [revert_sync_batchnorm(MODELS.build(settings)).to('cpu') for settings in (stock_model_cfg(cfg), cfg)]


def test_a_backward_pass(narrow_models):
    counts = []
    for model in narrow_models:
        labels = torch.randint(150, (2, 1, 512, 512))
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        with device_plan.using_plan(device_plan.GPU):
            losses = model.train().loss(torch.randn(2, 3, 512, 512), samples)
            with Operations('cpu') as found:
                total_loss(losses).backward()
        counts.append(found)
    assert_few(counts[1], counts[0], 1.3)


@pytest.mark.slow
@pytest.mark.slow
def test_sliding_windows(narrow_models):
    counts = []
    for model in narrow_models:
        model.eval().test_cfg = SLIDE
        meta = dict(ori_shape=(600, 1200), img_shape=(512, 1024), pad_shape=(512, 1024))
        for _ in range(2):  # the first makes what is kept
            with Operations('cpu') as found, torch.no_grad(), device_plan.using_plan(device_plan.GPU):
                model.predict(torch.randn(1, 3, 512, 1024), [SegDataSample(metainfo=meta)])
        counts.append(found)
    assert counts[1].total <= 1.2 * counts[0].total, counts[1].names - counts[0].names
