"""ExactIoUMetric against a confusion matrix in NumPy and against the stock metric; its report as files."""
import csv
import os

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image
from torch import distributed

from mmseg_inceptionnext.errors import LabelError
from mmseg_inceptionnext.evaluation import ClassReport, ExactIoUMetric, write_report

CLASSES = ('a', 'b', 'c', 'd', 'never')
ALL = ['mIoU', 'mDice', 'mFscore']


def sample(prediction, label):
    return dict(pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
                gt_sem_seg=dict(data=torch.from_numpy(label)[None]), img_path='x.png')


def evaluate(metric, pairs):
    metric.dataset_meta = dict(classes=CLASSES)
    for prediction, label in pairs:
        metric.process({}, [sample(prediction, label)])
    return metric.evaluate(len(pairs))


def numpy_confusion(pairs):
    confusion = np.zeros((5, 5), np.int64)
    for prediction, label in pairs:
        valid = label != 255
        np.add.at(confusion, (label[valid], prediction[valid]), 1)
    return confusion


def numpy_miou(pairs):
    confusion = numpy_confusion(pairs)
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


def numpy_ratios(confusion, beta=1):
    right, predicted, labelled = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    with np.errstate(invalid='ignore'):
        precision, recall = right / predicted, right / labelled
        return dict(
            IoU=right / (predicted + labelled - right), Acc=recall, Dice=2 * right / (predicted + labelled),
            Fscore=(1 + beta**2) * precision * recall / (beta**2 * precision + recall), Precision=precision,
            Recall=recall)


@pytest.mark.parametrize('beta', [1, 2])
def test_each_class_equals_numpy(beta):
    pairs = random_pairs(np.random.default_rng(0))
    pairs[0][1][pairs[0][1] == 3] = pairs[1][1][pairs[1][1] == 3] = 2  # d is predicted only
    metric = ExactIoUMetric(iou_metrics=ALL, beta=beta)
    means = evaluate(metric, pairs)
    confusion = numpy_confusion(pairs)
    expected = numpy_ratios(confusion, beta)
    assert list(metric.per_class) == [f'{name}/{label}' for name in expected for label in CLASSES]
    for name, values in expected.items():
        ours = [metric.per_class[f'{name}/{label}'] for label in CLASSES]
        np.testing.assert_allclose(ours, 100 * values, rtol=0, atol=1e-12)
        assert means[f'm{name}'] == pytest.approx(100 * np.nanmean(values), abs=1e-12)
    assert np.isnan(metric.per_class['IoU/never']) and np.isnan(metric.per_class['Acc/d'])
    assert metric.per_class['IoU/d'] == 0
    stock = evaluate(IoUMetric(iou_metrics=ALL, beta=beta), pairs)
    assert stock == pytest.approx(means, abs=0.006)
    assert metric.report.confusion.dtype == np.int64 and metric.report.absent == ['never']
    np.testing.assert_array_equal(metric.report.confusion, confusion)


def test_nan_to_num_is_as_stock():
    pairs = random_pairs(np.random.default_rng(1))
    options = dict(iou_metrics=ALL, nan_to_num=1)
    assert evaluate(IoUMetric(**options), pairs) == pytest.approx(evaluate(ExactIoUMetric(**options), pairs), abs=0.006)


def test_a_prefix_goes_to_every_name():
    metric = ExactIoUMetric(prefix='night')
    means = evaluate(metric, random_pairs(np.random.default_rng(0)))
    assert means.keys() == {'night/aAcc', 'night/mIoU', 'night/mAcc'} and 'night/IoU/a' in metric.per_class


def test_what_is_no_class_is_an_error_that_names_the_file():
    good = np.zeros((3, 4), np.int64)
    metric = ExactIoUMetric()
    with pytest.raises(LabelError, match=r'x.png: the label holds 7; allowed are 0 to 4, and 255'):
        evaluate(metric, [(good, good + 7)])
    with pytest.raises(LabelError, match=r'x.png: class 5 is predicted, the dataset names 5 classes'):
        evaluate(metric, [(good + 5, good)])


def share_of_a_process(rank, pairs, folder):
    """Evaluates this process's images as MMEngine's loop does."""
    os.chdir(folder)  # MMEngine collects results in a folder there
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    metric = ExactIoUMetric(iou_metrics=ALL)
    metric.dataset_meta = dict(classes=CLASSES)
    mine = [pairs[i] for i in DefaultSampler(pairs, shuffle=False)]
    assert len(mine) == 3  # of five images, so one is seen twice
    for prediction, label in mine:
        metric.process({}, [sample(prediction, label)])
    means = metric.evaluate(len(pairs))
    torch.save((means, metric.per_class, metric.report and metric.report.confusion), f'{folder}/{rank}.pt')
    distributed.barrier()
    os._exit(0)  # torch 2.1 may hang when it takes a gloo group down


@pytest.mark.slow
def test_two_processes_count_each_of_five_images_once(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [pair for _ in range(3) for pair in random_pairs(rng)][:5]
    torch.multiprocessing.spawn(share_of_a_process, (pairs, str(tmp_path)), 2)
    results = [torch.load(tmp_path / f'{rank}.pt', weights_only=False) for rank in (0, 1)]
    metric = ExactIoUMetric(iou_metrics=ALL)
    means = evaluate(metric, pairs)
    np.testing.assert_array_equal(results[0][2], numpy_confusion(pairs))
    for result in results:  # each process chooses the best checkpoint for itself
        assert result[0] == means
        np.testing.assert_equal(result[1], metric.per_class)


def test_an_image_above_the_range_of_single_precision():
    """As ``intersect_and_union`` counts: an image of 2^24 + 1 pixels of a class, whose areas the stock one rounds."""
    label = torch.zeros(2**24 + 1, dtype=torch.uint8)
    areas = ExactIoUMetric.intersect_and_union(label, label, 2, 255)
    assert [int(area[0]) for area in areas[:4]] == [2**24 + 1] * 4 and int(areas[4].to_dense().sum()) == 2**24 + 1


def test_data_samples_of_a_segmentor_are_taken():
    metric = ExactIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    data = PixelData(data=torch.tensor([[[0, 1], [2, 2]]]))
    metric.process({}, [SegDataSample(pred_sem_seg=data, gt_sem_seg=data, metainfo=dict(img_path='x')).to_dict()])
    assert metric.evaluate(1)['mIoU'] == 100


@pytest.mark.parametrize('count', [11, 150])
def test_the_report_as_files(tmp_path, count):
    rng = np.random.default_rng(count)
    names = ['door, screen; "glass"/wood', *(f'class {i}' for i in range(1, count))]
    confusion = rng.integers(0, 50, (count, count)) + np.diag(rng.integers(100, 9000, count))
    confusion[-1] = confusion[:, -1] = 0  # the last one is absent, the one before never labelled
    confusion[-2] = 0
    ratios = numpy_ratios(confusion)
    report = ClassReport(names, ratios, confusion.sum(0), confusion.sum(1), confusion)
    paths = write_report(report, str(tmp_path / 'new'), 'night_')
    assert [path[len(str(tmp_path)):] for path in paths] == [
        f'/new/night_{name}' for name in ('per_class.csv', 'confusion.npy', 'confusion.png')]
    with open(paths[0], newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['class'] for row in rows] == names and report.absent == names[-1:]
    for metric, values in ratios.items():
        written = [float(row[metric] or 'nan') for row in rows]
        np.testing.assert_allclose(written, 100 * values, rtol=1e-12)
    assert rows[-1]['IoU'] == rows[-2]['Acc'] == '' and float(rows[-2]['IoU']) == 0
    np.testing.assert_array_equal([int(row['labelled_pixels']) for row in rows], confusion.sum(1))
    matrix = np.load(paths[1])
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, confusion)
    picture = Image.open(paths[2]).convert('RGB')
    assert min(picture.size) > (2000 if count == 150 else 500) and len(picture.getcolors(2**24)) > 100
