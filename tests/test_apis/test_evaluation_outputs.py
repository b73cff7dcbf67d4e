"""What an evaluation writes of joined test sets, of some of the classes, and of folders in folders."""
import json
from contextlib import nullcontext

import mmseg
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, METRICS, MODELS
from PIL import Image

from mmseg_inceptionnext.apis import evaluate
from mmseg_inceptionnext.apis.evaluation import _apply_options
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import ADEChallengeDataset
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import MemoryEfficientEncoderDecoder

from utils import ROOT, TOY, short_config

ALL_SAME = mmseg.__version__ < '1.3'  # MMSegmentation 1.2 would paint all images of one name into one file
SOME = ('road', 'car', 'sky')  # 7, 21 and 3 in the files
IDS = {7: 0, 21: 1, 3: 2}
VALUES = np.array([[3] * 32, [7] * 32, [21] * 32]).repeat([12, 12, 8], 0).astype(np.uint8)


@MODELS.register_module()
class ColourSegmentor(MemoryEfficientEncoderDecoder):
    """Predicts an image's class from its colours, which are the values of its label times ten."""

    def __init__(self, ids, **kwargs):
        super().__init__(**kwargs)
        self.ids = ids

    def predict(self, inputs, data_samples=None):
        for sample in data_samples:
            values = np.round(np.array(Image.open(sample.img_path)).mean(-1) / 10)
            classes = np.select([values == value for value in self.ids], list(self.ids.values()), 0)
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(classes)[None])
        return data_samples


@DATASETS.register_module()
class RoadOrNot(ADEChallengeDataset):
    """ADE20K in two classes: all but the road is ``other``."""
    METAINFO = dict(classes=('other', 'road'), palette=[[0, 0, 0], [140, 140, 140]])

    @classmethod
    def get_label_map(cls, new_classes=None):
        return {i: int(i == 6) for i in range(150)}


def draw(root, *names):
    for split in ('training', 'validation'):
        for name in names:
            label = np.roll(VALUES, len(name), 0)
            label[:2] = 0
            image = np.stack([10 * label] * 3, -1)
            for array, path in ((image, f'images/{split}/{name}.jpg'), (label, f'annotations/{split}/{name}.png')):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / path, quality=100)
    return root


def config(root, work_dir, **dataset):
    cfg = short_config(root, work_dir)
    cfg.test_dataloader.dataset.update(dataset)
    return cfg


def some_classes(root, work_dir, **dataset):
    """A config of three of the classes, or of those of a data set, whose model is right everywhere."""
    dataset = dataset or dict(metainfo=dict(classes=SOME, palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]]))
    cfg = config(root, work_dir, **dataset)
    cfg.model.update(type='ColourSegmentor', ids=IDS)
    cfg.model.decode_head.num_classes = 3
    return cfg


def weights(cfg):
    path = f'{cfg.work_dir}.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


def run(cfg, **kwargs):
    return evaluate(cfg, weights(cfg), **{key: str(value) for key, value in kwargs.items()})


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png'))


def assert_equals_labels(out, labels):
    files = written(out)
    assert files
    for name in files:
        label, prediction = (np.array(Image.open(folder / name)) for folder in (labels, out))
        np.testing.assert_array_equal(prediction[label > 0], label[label > 0])
        assert set(np.unique(prediction)) <= set(IDS)


def test_some_of_the_classes_are_written_in_the_values_of_the_data(tmp_path):
    root = draw(tmp_path / 'data', 'x', 'yy')
    metrics = run(some_classes(root, tmp_path / 'work'), out=tmp_path / 'out')
    assert metrics['mIoU'] == 100 and written(tmp_path / 'out') == ['x.png', 'yy.png']
    assert_equals_labels(tmp_path / 'out', root / 'annotations/validation')


def test_images_without_labels_get_the_values_of_the_test_set(tmp_path):
    root = draw(tmp_path / 'data', 'a/x', 'b/x')
    cfg = some_classes(root, tmp_path / 'work')
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset] * 2)
    run(cfg, no_gt=root / 'images/training')
    assert written(tmp_path / 'work/predictions') == ['a/x.png', 'b/x.png']
    assert_equals_labels(tmp_path / 'work/predictions', root / 'annotations/training')


def test_merged_classes_are_said(tmp_path):
    root = draw(tmp_path / 'data', 'x')
    cfg = some_classes(root, tmp_path / 'work', type='RoadOrNot')
    cfg.model.ids, cfg.model.decode_head.num_classes = {7: 1}, 2
    assert run(cfg, out=tmp_path / 'out')['mIoU'] == 100
    label = np.array(Image.open(root / 'annotations/validation/x.png'))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / 'out/x.png')), np.where(label == 7, 7, 1))
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert log.count('label values that are written: other is 1 of 1, 2, 3, ') == 1


def joined(tmp_path, *roots):
    cfg = config(draw(tmp_path / roots[0], 's0'), tmp_path / 'work')
    first = cfg.test_dataloader.dataset
    rest = [dict(first, data_root=str(draw(tmp_path / root, 's0'))) for root in roots[1:]]
    repeated = [dict(type='RepeatDataset', times=2, dataset=dataset) for dataset in rest]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, *repeated])
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('protocol', ['ss', 'ms', 'paper'])
def test_joined_test_sets_by_each_protocol(tmp_path, protocol):
    cfg = joined(tmp_path, 'night', 'day')
    show = {} if ALL_SAME else dict(show_dir=tmp_path / 'show')
    metrics = run(cfg, protocol=protocol, out=tmp_path / 'out', **show)
    assert 0 <= metrics['mIoU'] <= 100
    assert json.loads((tmp_path / 'work/metrics.json').read_text())['protocol']['name'] == protocol
    rows = np.load(tmp_path / 'work/confusion.npy').sum(1)
    label = np.array(Image.open(tmp_path / 'day/annotations/validation/s0.png'))
    assert rows.sum() == 3 * (label > 0).sum()  # an image of one data set, and twice that of the other
    assert written(tmp_path / 'out') == ['day/images/validation/s0.png', 'night/images/validation/s0.png']
    assert ALL_SAME or len(written(tmp_path / 'show')) == 3


def test_a_painted_picture_of_each_image_is_kept(tmp_path):
    root = draw(tmp_path / 'data', 'a/s0', 'b/s0', 'c/s0')
    refused = pytest.raises(ConfigError, match='s0.jpg would both be written to s0.png')
    with refused if ALL_SAME else nullcontext():
        run(config(root, tmp_path / 'work'), show_dir=tmp_path / 'show')
    assert ALL_SAME or len(written(tmp_path / 'show')) == 3


@pytest.mark.slow
def test_what_would_be_overwritten_is_refused_before_the_first_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryEfficientEncoderDecoder, 'predict', lambda *args: pytest.fail('it was predicted'))
    root = draw(tmp_path / 'data', 'a/s0', *([] if ALL_SAME else ['b/s0']))
    for option in ('out', 'show_dir'):
        for folder in (root / 'images/validation', root / 'annotations/validation', root / 'annotations/validation/a'):
            with pytest.raises(ConfigError, match=f'^--{option[:4]}.* {folder}.* is a folder of the images or labels'):
                run(config(root, tmp_path / 'work'), **{option: folder})
    stock = config(draw(tmp_path / 'data', 'b/s0'), tmp_path / 'work')
    stock.test_evaluator = dict(type='IoUMetric')  # which writes all files to one folder
    with pytest.raises(ConfigError, match='a/s0.jpg and .*b/s0.jpg would both be written to s0.png'):
        run(stock, out=tmp_path / 'out')


def test_a_stock_metric_beside_ours_writes_nothing_over_it(tmp_path):
    root = draw(tmp_path / 'data', 'x')
    cfg = some_classes(root, tmp_path / 'work')
    cfg.test_evaluator = [dict(type='ExactIoUMetric', prefix='exact'), dict(type='IoUMetric')]
    assert run(cfg, out=tmp_path / 'out')['exact/mIoU'] == 100
    assert_equals_labels(tmp_path / 'out', root / 'annotations/validation')


@METRICS.register_module()
class OwnMetric(IoUMetric):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize('option,change,words', [
    ('show_dir', dict(visualizer=None), '--show-dir needs a visualizer'),
    ('show_dir', dict(default_hooks=dict(visualization=None)), '--show-dir needs default_hooks.visualization'),
    ('out', dict(test_evaluator=None), '--out .* needs a metric that writes files'),
    ('out', dict(test_evaluator=[]), '--out .* needs a metric that writes files'),
    ('out', dict(test_evaluator=dict(type='DepthMetric')), None),
    ('out', dict(test_evaluator=dict(type='Evaluator', metrics=[dict(type='OwnMetric')])), None),
    ('out', dict(test_evaluator=dict(metrics=dict(type='ExactIoUMetric'))), None)])
def test_options_that_write_nothing_are_refused(tmp_path, option, change, words):
    cfg = load_config(str(ROOT / TOY))
    for key, value in change.items():
        cfg[key] = value
    options = dict(dict(out=None, show_dir=None), **{option: str(tmp_path)})
    if words:
        with pytest.raises(ConfigError, match=words):
            _apply_options(cfg, **options)
    else:
        _apply_options(cfg, **options)
        assert str(cfg.test_evaluator).count(str(tmp_path)) == 1
