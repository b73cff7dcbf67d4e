"""MemoryEfficientEncoderDecoder and RunningSumTTAModel against MMSegmentation's own, in float64."""
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_inceptionnext.analysis.stock import stock_model_cfg
from mmseg_inceptionnext.models import MemoryEfficientEncoderDecoder, RunningSumTTAModel, device_plan
from mmseg_inceptionnext.models.segmentors.tiled_loss import tiled_loss
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

from utils import ROOT, narrow, randomise, total_loss

HEADS = ('upernet', 'fpn')
PLANS = dict(cpu=device_plan.CPU, gpu=device_plan.GPU, small=device_plan.GPU._replace(tile_bytes=2**14))


@pytest.fixture(params=list(PLANS))
def plan(request):
    """What each kind of device would do, and with many tiles."""
    with device_plan.using_plan(PLANS[request.param]):
        yield


def pair(name, num_classes=7, align_corners=False, **head):
    """The stock segmentor and ours of few channels, with the same random weights, in float64."""
    cfg = Config.fromfile(ROOT / f'configs/{name}_inceptionnext_a_ade20k.py').model
    narrow(cfg)
    cfg.backbone.arch.depths = (1, 1, 1, 1)
    cfg.backbone.update(init_cfg=None, drop_path_rate=0.)
    cfg.data_preprocessor.update(size=None)
    for part in [cfg.decode_head, *([cfg.auxiliary_head] if name == 'upernet' else [])]:
        part.update(num_classes=num_classes, align_corners=align_corners, dropout_ratio=0, **head)
    cfg.decode_head.channels = 24
    if name == 'fpn':
        cfg.neck.out_channels = 16
        cfg.decode_head.in_channels = [16] * 4
    stock = randomise(without_sync_bn(MODELS.build(stock_model_cfg(cfg)))).double()
    ours = without_sync_bn(MODELS.build(cfg)).double()
    ours.load_state_dict(stock.state_dict())
    assert type(stock) is EncoderDecoder and type(ours) is MemoryEfficientEncoderDecoder
    return stock.eval(), ours.eval()


def fpn_cfg():
    cfg = Config.fromfile(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py').model
    narrow(cfg)
    cfg.backbone.init_cfg = None
    return cfg


def samples(metas):
    return [SegDataSample(metainfo=dict(meta)) for meta in metas]


def predictions(model, inputs, metas, **test_cfg):
    model.test_cfg = Config(dict(dict(mode='whole'), **test_cfg))
    with torch.no_grad():
        return model.predict(inputs, samples(metas) if metas else None)


def assert_same_classes(ours, stock):
    assert len(ours) == len(stock)
    for mine, theirs in zip(ours, stock):
        assert mine.pred_sem_seg.data.dtype == theirs.pred_sem_seg.data.dtype
        assert len(theirs.pred_sem_seg.data.unique()) > 1  # else it proves nothing
        assert torch.equal(mine.pred_sem_seg.data, theirs.pred_sem_seg.data)
        assert 'seg_logits' not in mine


@pytest.mark.parametrize('name', HEADS)
def test_predictions_are_the_stock_ones(name):
    stock, ours = pair(name)
    inputs = torch.randn(1, 3, 75, 101, dtype=torch.float64)
    metas = [dict(ori_shape=(113, 88), img_shape=(75, 101), pad_shape=(75, 101))]
    assert_same_classes(predictions(ours, inputs, metas), predictions(stock, inputs, metas))


METAS = (
    dict(ori_shape=(50, 170), padding_size=[0, 13, 0, 9]),
    dict(ori_shape=(61, 61), img_padding_size=[3, 5, 7, 2]),
    dict(ori_shape=(130, 91), flip=True, flip_direction='horizontal'),
    dict(ori_shape=(96, 96), flip=True, flip_direction='vertical', padding_size=[0, 0, 4, 0]),
    dict(ori_shape=(96, 96), flip=False, flip_direction=None),
)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('slide', [False, True])
def test_postprocessing_is_the_stock_one(plan, align_corners, slide):
    stock, ours = pair('fpn', align_corners=align_corners)
    inputs = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    test_cfg = dict(mode='slide', crop_size=(48, 48), stride=(33, 40)) if slide else {}
    for meta in METAS:
        metas = [dict(meta, img_shape=(64, 96), pad_shape=(64, 96))] * 2
        assert_same_classes(predictions(ours, inputs, metas, **test_cfg), predictions(stock, inputs, metas, **test_cfg))


@pytest.mark.parametrize('size,crop,stride,batch_size', [
    ((128, 96), (64, 64), (32, 32), None), ((96, 200), (64, 96), (43, 50), 2), ((200, 70), (64, 64), (64, 64), 5),
    ((64, 64), (96, 96), (48, 48), 2), ((70, 130), (96, 64), (30, 30), 5), ((130, 33), (40, 40), (13, 13), None)])
def test_sliding_windows(plan, size, crop, stride, batch_size):
    stock, ours = pair('fpn')
    inputs = torch.randn(2, 3, *size, dtype=torch.float64)
    metas = [dict(ori_shape=shape, img_shape=size, pad_shape=size) for shape in ((133, 77), (133, 77))]
    test_cfg = dict(mode='slide', crop_size=crop, stride=stride)
    expected = predictions(stock, inputs, metas, **test_cfg)
    if batch_size:
        test_cfg['batch_size'] = batch_size
    assert_same_classes(predictions(ours, inputs, metas, **test_cfg), expected)
    logits = torch.stack([sample.seg_logits.data for sample in expected])
    with torch.no_grad():
        for image, (_, tiles) in zip(logits, ours.logit_tiles(inputs, samples(metas))):
            for rows, cols, tile in tiles:
                torch.testing.assert_close(tile, image[:, rows, cols].permute(1, 2, 0), rtol=1e-9, atol=1e-9)


def test_without_metainfo_the_classes_are_those_of_the_input():
    stock, ours = pair('upernet')
    inputs = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    assert_same_classes(predictions(ours, inputs, None), predictions(stock, inputs, None))


def test_images_of_several_sizes_in_a_batch():
    stock, ours = pair('fpn')
    inputs = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    metas = [dict(ori_shape=shape, img_shape=(64, 96), pad_shape=(64, 96)) for shape in ((33, 44), (150, 99))]
    assert_same_classes(predictions(ours, inputs, metas), predictions(stock, inputs, metas))


def test_binary_segmentation():
    stock, ours = pair('fpn', num_classes=2, out_channels=1, threshold=0.4,
                       loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    inputs = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    metas = [dict(ori_shape=(70, 90), img_shape=(64, 96), pad_shape=(64, 96))] * 2
    with torch.no_grad():
        stock.decode_head.threshold = ours.decode_head.threshold = stock(inputs).sigmoid().median().item()
    assert_same_classes(predictions(ours, inputs, metas), predictions(stock, inputs, metas))


def test_logits_when_they_are_asked_for():
    stock, ours = pair('fpn')
    inputs = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    metas = [dict(ori_shape=(70, 90), img_shape=(64, 96), pad_shape=(64, 96))]
    expected, = predictions(stock, inputs, metas)
    result, = predictions(ours, inputs, metas, return_logits=True)
    torch.testing.assert_close(result.seg_logits.data, expected.seg_logits.data, rtol=1e-9, atol=1e-9)


def test_an_unknown_flip_is_refused():
    _, ours = pair('fpn')
    with pytest.raises(ValueError, match="flip_direction='diagonal': allowed are horizontal and vertical"):
        predictions(ours, torch.randn(1, 3, 64, 64, dtype=torch.float64),
                    [dict(ori_shape=(64, 64), flip=True, flip_direction='diagonal')])


def labelled(batch, size, num_classes=7, ignored=0.2):
    labels = torch.randint(num_classes, (batch, 1, *size))
    labels[torch.rand(labels.shape) < ignored] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=size)) for label in labels]


LOSSES = {
    'mean over all': dict(type='CrossEntropyLoss', loss_weight=0.7),
    'mean over labelled': dict(type='CrossEntropyLoss', avg_non_ignore=True),
    'class weights': dict(type='CrossEntropyLoss', class_weight=[0.5, 1., 2., 0., 3., 1., 1.5]),
    'two losses of one name': [dict(type='CrossEntropyLoss'), dict(type='CrossEntropyLoss', avg_non_ignore=True)],
    'two names': [dict(type='CrossEntropyLoss', loss_name='loss_a'),
                  dict(type='CrossEntropyLoss', loss_name='loss_b', avg_non_ignore=True)],
}


@pytest.mark.parametrize('loss_decode', LOSSES.values(), ids=list(LOSSES))
@pytest.mark.parametrize('name,align_corners,batch', [('fpn', False, 2), ('fpn', True, 3), ('upernet', False, 2)])
def test_losses_and_gradients_are_the_stock_ones(plan, name, align_corners, batch, loss_decode):
    stock, ours = (model.train() for model in pair(name, align_corners=align_corners, loss_decode=loss_decode))
    inputs = torch.randn(batch, 3, 75, 101, dtype=torch.float64)
    data = labelled(batch, (75, 101), ignored=0 if 'class_weight' in loss_decode else 0.2)
    theirs, mine = stock.loss(inputs, data), ours.loss(inputs, data)
    assert theirs.keys() == mine.keys() and any(key.startswith('aux') for key in mine) == (name == 'upernet')
    for key in theirs:
        torch.testing.assert_close(mine[key].double(), theirs[key].double(), rtol=1e-6, atol=1e-7, msg=key)
    total_loss(theirs).backward()
    total_loss(mine).backward()
    grads = dict(stock.named_parameters())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[key].grad, rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.parametrize('name', HEADS)
def test_the_loss_is_single_precision_under_autocast(name):
    """As it would be on a GPU, where PyTorch's autocast keeps it so; its gradients reach float32 weights."""
    _, ours = pair(name)
    ours.float().train()
    inputs, data = torch.randn(2, 3, 75, 101), labelled(2, (75, 101))
    expected = ours.loss(inputs, data)
    with torch.autocast('cpu', torch.bfloat16):
        losses = ours.loss(inputs, data)
        total_loss(losses).backward()  # also inside of it
    for key, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[key], rtol=0.05, atol=0.05 if 'loss' in key else 3)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in ours.parameters())


def test_the_loss_is_differentiated_once():
    _, ours = pair('fpn')
    inputs, data = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True), labelled(2, (64, 64))
    grad, = torch.autograd.grad(total_loss(ours.train().loss(inputs, data)), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match='a second one was asked for'):
        grad.square().sum().backward()


def test_logits_of_the_labels_size_are_left_as_they_are():
    """Nothing is enlarged then, and the loss may not be computed in their place."""
    _, ours = pair('fpn')
    logits = torch.randn(2, 7, 16, 16, dtype=torch.float64, requires_grad=True)
    labels, before = torch.randint(7, (2, 16, 16)), logits.detach().clone()
    losses = tiled_loss(ours.decode_head, logits, labels)
    expected = torch.nn.functional.cross_entropy(before.requires_grad_(), labels)
    torch.testing.assert_close(losses['loss_ce'], expected, rtol=1e-6, atol=0)
    assert torch.equal(logits, before)
    for x in (losses['loss_ce'], expected):
        x.backward()
    torch.testing.assert_close(logits.grad, before.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('kind', ['cpu', 'gpu'])
def test_the_model_takes_the_memory_format_of_its_device(kind):
    with device_plan.using_plan(PLANS[kind]):
        model = MODELS.build(dict(fpn_cfg())).to('cpu')
        weight = model.backbone.stem[0].weight
        assert weight.is_contiguous(memory_format=PLANS[kind].memory_format) and not weight.is_contiguous()
        assert model.to(memory_format=torch.contiguous_format).backbone.stem[0].weight.is_contiguous()


def test_a_crop_without_a_label_has_no_loss():
    _, ours = (model.train() for model in pair('fpn'))
    losses = ours.loss(torch.randn(2, 3, 64, 64, dtype=torch.float64), labelled(2, (64, 64), ignored=1))
    assert losses['decode.loss_ce'] == 0 and losses['decode.acc_seg'] > 0  # 100 by MMSegmentation's own convention
    total_loss(losses).backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())


def test_ignored_labels_with_class_weights_weigh_nothing():
    weights = torch.tensor([0.5, 1., 2., 0., 3., 1., 1.5], dtype=torch.float64)
    _, ours = (model.train() for model in pair('fpn', loss_decode=dict(
        type='CrossEntropyLoss', class_weight=weights.tolist(), avg_non_ignore=True)))
    inputs, data = torch.randn(2, 3, 64, 64, dtype=torch.float64), labelled(2, (64, 64))
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(ours(inputs), size=(64, 64), mode='bilinear')
    labels = torch.cat([sample.gt_sem_seg.data for sample in data])
    expected = torch.nn.functional.cross_entropy(logits, labels, weights, ignore_index=255)  # PyTorch's weighted mean
    torch.testing.assert_close(ours.loss(inputs, data)['decode.loss_ce'], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('head,words', [
    (dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)), 'samples pixels by OHEMPixelSampler'),
    (dict(loss_decode=dict(type='DiceLoss')), 'another loss than the softmax cross-entropy'),
])
def test_other_losses_run_the_stock_way_and_say_so_once(head, words):
    stock, ours = (model.train() for model in pair('fpn', **head))
    inputs, data = torch.randn(2, 3, 64, 64, dtype=torch.float64), labelled(2, (64, 64))
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_instance('test_memory_efficient', log_level='INFO')
    logger.addHandler(handler)
    theirs, mine, _ = stock.loss(inputs, data), ours.loss(inputs, data), ours.loss(inputs, data)
    logger.removeHandler(handler)
    for key in theirs:
        torch.testing.assert_close(mine[key], theirs[key])
    told = [line for line in lines if words in line]
    assert len(told) == 1 and 'the stock way' in told[0]


@pytest.mark.parametrize('slide', [False, True])
def test_views_are_summed_to_the_stock_result(slide):
    stock, ours = pair('fpn')
    test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(40, 40)) if slide else dict(mode='whole')
    stock.test_cfg = ours.test_cfg = Config(test_cfg)
    data = dict(inputs=[], data_samples=[])
    for i, size in enumerate([(64, 96), (80, 112), (96, 128)]):
        meta = dict(ori_shape=(75, 99), img_shape=size, pad_shape=size, flip=i == 1, flip_direction='horizontal',
                    img_path='a.jpg')
        data['inputs'].append([torch.randint(256, (3, *size), dtype=torch.uint8).double() for _ in range(2)])
        data['data_samples'].append([
            SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=torch.full((1, 75, 99), j))) for j in range(2)])
    with torch.no_grad():
        theirs = SegTTAModel(module=stock).test_step(data)
        mine = RunningSumTTAModel(module=ours).test_step(data)
    assert len(mine) == 2
    for j, (a, b) in enumerate(zip(mine, theirs)):
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data) and len(a.pred_sem_seg.data.unique()) > 1
        assert a.gt_sem_seg.data[0, 0, 0] == j and a.img_path == 'a.jpg' and 'seg_logits' not in a
