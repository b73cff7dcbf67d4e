"""ExactIoUMetric against a confusion matrix in NumPy and against the stock metric."""
import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmseg_inceptionnext.evaluation import ExactIoUMetric

CLASSES = ('a', 'b', 'c', 'd', 'never')


def sample(prediction, label):
    return dict(pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
                gt_sem_seg=dict(data=torch.from_numpy(label)[None]), img_path='x.png')


def evaluate(metric, pairs):
    metric.dataset_meta = dict(classes=CLASSES)
    for prediction, label in pairs:
        metric.process({}, [sample(prediction, label)])
    return metric.evaluate(len(pairs))


def numpy_miou(pairs):
    confusion = np.zeros((5, 5))
    for prediction, label in pairs:
        valid = label != 255
        np.add.at(confusion, (label[valid], prediction[valid]), 1)
    with np.errstate(invalid='ignore'):
        iou = confusion.diagonal() / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())
    return 100 * np.nanmean(iou)


def random_pairs(rng):
    labels = [rng.choice([0, 1, 2, 3, 255], size) for size in ((7, 9), (13, 5))]
    return [(rng.integers(0, 4, label.shape), label) for label in labels]


@pytest.mark.parametrize('seed', range(5))
def test_equals_a_confusion_matrix(seed):
    pairs = random_pairs(np.random.default_rng(seed))
    metrics = evaluate(ExactIoUMetric(), pairs)
    assert metrics['mIoU'] == pytest.approx(numpy_miou(pairs), abs=1e-9)
    stock = evaluate(IoUMetric(), pairs)
    assert metrics.keys() == stock.keys() == {'aAcc', 'mIoU', 'mAcc'}
    for key in stock:
        assert metrics[key] == pytest.approx(stock[key], abs=0.006)  # the stock metric rounds


def test_perfect_predictions():
    pairs = [(np.where(label == 255, 4, label), label) for _, label in random_pairs(np.random.default_rng(0))]
    assert evaluate(ExactIoUMetric(), pairs) == dict(aAcc=100., mIoU=100., mAcc=100.)


def test_counts_every_pixel_of_a_large_set():
    metric = ExactIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    areas = torch.tensor([2.**24, 0, 0, 0, 0])
    one = torch.tensor([1., 0, 0, 0, 0])
    results = [(areas, areas, areas, areas)] + [(0 * one, one, 0 * one, one)] * 5
    assert metric.compute_metrics(results)['mIoU'] == 100 * 2**24 / (2**24 + 5)


def test_other_metrics_keep_their_names():
    pairs = random_pairs(np.random.default_rng(0))
    metrics = evaluate(ExactIoUMetric(iou_metrics=['mIoU', 'mDice', 'mFscore']), pairs)
    assert {'mIoU', 'mDice', 'mFscore', 'mPrecision', 'mRecall', 'mAcc', 'aAcc'} == metrics.keys()
    assert metrics['mDice'] == pytest.approx(metrics['mFscore'])
