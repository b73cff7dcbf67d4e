"""MemoryEfficientEncoderDecoder trains and predicts with every decode head of MMSegmentation as EncoderDecoder does."""
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.export.exportable import ExportableSegmentor
from mmseg_inceptionnext.export.onnx_export import trace

from stock_heads import LAST, OTHERS, STOCK, segmentor
from utils import total_loss

META = dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), padding_size=[0] * 4)


def step(model, images, labels):
    """The losses, gradients and predictions, from the same random numbers."""
    data = [SegDataSample(gt_sem_seg=PixelData(data=label[None]), metainfo=META) for label in labels]
    torch.manual_seed(0)
    losses = model.train().loss(images, data)
    total_loss(losses).backward()
    torch.manual_seed(0)
    with torch.no_grad():
        classes = [sample.pred_sem_seg.data for sample in model.eval().predict(images, data)]
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, classes


def assert_as_stock(ours, stock):
    ours.load_state_dict(stock.state_dict())
    ours.to('cpu')  # which makes it channels-last
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64))
    try:
        losses, grads, classes = step(stock, images, labels)
    except RuntimeError as error:
        if 'modified by an inplace operation' not in str(error):  # as DNLHead's are, in PyTorch 2.1
            raise
        pytest.skip(f'the stock segmentor cannot be trained here: {error}')
    mine = step(ours, images, labels)
    for found, expected in ((mine[0], losses), (mine[1], grads)):
        assert found.keys() == expected.keys() and expected
        for key, value in expected.items():
            torch.testing.assert_close(found[key].to(value), value, rtol=1e-6, atol=1e-7, msg=key)
    assert all(map(torch.equal, mine[2], classes))


@pytest.mark.parametrize('head', STOCK.values(), ids=list(STOCK))
def test_each_head_runs_as_in_the_stock_segmentor(in_float64, head):
    assert_as_stock(segmentor(head), segmentor(head, kind='EncoderDecoder'))


def test_each_head_that_is_registered_is_known():
    found = {name for name, kind in MODELS.module_dict.items()
             if kind.__module__.startswith('mmseg.models.decode_heads') and hasattr(kind, 'loss_by_feat')}
    assert len(found) > 25 and found <= {head['type'] for head in STOCK.values()} | set(OTHERS)


def test_what_onnx_has_not_is_said(tmp_path):
    network = ExportableSegmentor(segmentor(STOCK['dynamic filters']).float()).eval()
    with pytest.raises(InputError, match='DMHead has an operation that ONNX has not for images of free sizes'):
        trace(network, str(tmp_path / 'a.onnx'))


class Turned(MODELS.get('FCNHead')):
    """A head that fails by itself."""

    def forward(self, inputs):
        raise RuntimeError('of its own')


def test_other_errors_of_heads_stay_what_they_are():
    model = segmentor(dict(LAST, type=Turned))
    with pytest.raises(RuntimeError, match='^of its own$'):
        model(torch.randn(1, 3, 64, 64, dtype=torch.float64))
