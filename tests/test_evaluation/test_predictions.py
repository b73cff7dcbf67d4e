"""Predictions as files: the label values of the data set, and a file for each image."""
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_inceptionnext.datasets import ADEChallengeDataset, CamVidDataset
from mmseg_inceptionnext.datasets.folders import FolderDataset
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.evaluation import ExactIoUMetric
from mmseg_inceptionnext.evaluation.predictions import (
    Target,
    ambiguous_classes,
    label_values,
    plan_targets,
    refuse_data_folders,
)

ADE = ('sky', 'car', 'road')  # 2, 20 and 6 of 150, in another order
STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckLabels'),
         dict(type='PackSegInputs')]


@DATASETS.register_module()
class Coarse(FolderDataset):
    """Label values 0 to 5 in three classes: 0, 3 and 5 are ``ground``, 4 is ``water``, 1 ``built``; 2 is ignored."""
    METAINFO = dict(classes=('ground', 'water', 'built'), palette=[[0, 0, 0]] * 3)

    @classmethod
    def get_label_map(cls, new_classes=None):
        return {0: 0, 1: 2, 2: 255, 3: 0, 4: 1, 5: 0}


def draw(folder, *names, values=(0,), suffix='.jpg'):
    """Images, and labels of 8 x 16 in which all of some values occur."""
    rng = np.random.default_rng(0)
    for name in names:
        label = np.concatenate([values, rng.choice(values, 128 - len(values))]).reshape(8, 16).astype(np.uint8)
        for kind, array, end in (('images', np.stack([label] * 3, -1), suffix), ('labels', label, '.png')):
            path = folder / kind / f'{name}{end}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def dataset_of(kind, folder, **kwargs):
    return kind(data_root=str(folder), data_prefix=dict(img_path='images', seg_map_path='labels'), test_mode=True,
                pipeline=STEPS, **kwargs)


def predict_perfectly(dataset, out, targets=None):
    """Writes what the labels hold, with class 0 where they are ignored."""
    metric = ExactIoUMetric(output_dir=str(out))
    metric.dataset_meta = dataset.metainfo
    if targets is not None:
        metric.targets = targets
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        label = sample.gt_sem_seg.data
        sample.pred_sem_seg = PixelData(data=torch.where(label == 255, 0, label.long()))
        metric.process({}, [sample.to_dict()])
    assert metric.evaluate(len(dataset))['mIoU'] == 100


def load(path):
    return np.array(Image.open(path))


@pytest.mark.parametrize('kind,kwargs,values,ignored', [
    (ADEChallengeDataset, {}, (0, 1, 2, 149, 150), [0]),
    (ADEChallengeDataset, dict(metainfo=dict(classes=ADE)), (0, 3, 7, 21, 55), [0, 55]),
    (ADEChallengeDataset, dict(metainfo=dict(classes=ADEChallengeDataset.METAINFO['classes'][::-1])), (1, 9, 150), []),
    (CamVidDataset, {}, (0, 10, 255), [255]),
    (CamVidDataset, dict(metainfo=dict(classes=('tree', 'sky'))), (0, 5, 8, 255), [8, 255]),
    (Coarse, {}, (0, 1, 2, 4), [2]),
    (Coarse, dict(reduce_zero_label=True), (0, 1, 2, 3, 5), [0, 3]),
])
def test_a_perfect_prediction_is_the_label_file(tmp_path, kind, kwargs, values, ignored):
    draw(tmp_path, 'x', values=values)
    dataset = dataset_of(kind, tmp_path, **kwargs)
    for out, targets in (('planned', plan_targets(dataset)), ('stock tools', None)):
        predict_perfectly(dataset, tmp_path / out, targets)
        label, written = load(tmp_path / 'labels/x.png'), load(tmp_path / out / 'x.png')
        assert written.dtype == np.uint8
        counted = ~np.isin(label, ignored)
        np.testing.assert_array_equal(written[counted], label[counted])
        assert set(np.unique(written)) <= set(label_values(
            len(dataset.metainfo['classes']), dataset.reduce_zero_label, dataset.label_map))


def test_joined_data_sets_keep_their_own_values(tmp_path):
    classes = dict(metainfo=dict(classes=('road', 'sky'), palette=[[1, 1, 1], [2, 2, 2]]))
    draw(tmp_path / 'a', 'one', values=(3, 7))
    draw(tmp_path / 'b', 'two', values=(0, 3))
    joined = ConcatDataset([dataset_of(ADEChallengeDataset, tmp_path / 'a', **classes),
                            dataset_of(CamVidDataset, tmp_path / 'b', **classes)],
                           ignore_keys=['label_map', 'reduce_zero_label'])
    predict_perfectly(joined, tmp_path / 'out', plan_targets(joined))
    for name in ('a/labels/one.png', 'b/labels/two.png'):
        np.testing.assert_array_equal(load(tmp_path / 'out' / name[-7:]), load(tmp_path / name))


def test_merged_classes_are_written_as_their_smallest_value_and_named(tmp_path):
    draw(tmp_path, 'x')
    dataset = dataset_of(Coarse, tmp_path)
    assert label_values(3, False, dataset.label_map).tolist() == [0, 4, 1]
    assert ambiguous_classes(('ground', 'water', 'built'), plan_targets(dataset)) == ['ground is 0 of 0, 3, 5']
    dataset = dataset_of(Coarse, tmp_path, reduce_zero_label=True)
    assert ambiguous_classes(('ground', 'water', 'built'), plan_targets(dataset)) == ['ground is 1 of 1, 4, 6']
    unread = {'x.jpg': Target('x', False, {0: 1, 1: 1, 2: 0})}
    assert ambiguous_classes(('a', 'b', 'c'), unread) == ['b is 0 of 0, 1', 'c is 255, as none is it']
    assert label_values(3, False, {0: 1, 1: 1, 2: 0}).tolist() == [2, 0, 255]


def test_values_above_255_take_sixteen_bits(tmp_path):
    assert label_values(255, True).dtype == np.uint8 and label_values(255, True)[-1] == 255
    values = label_values(300, True)
    assert values.dtype == np.uint16 and values.tolist() == list(range(1, 301))
    metric = ExactIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=[f'c{i}' for i in range(300)])
    prediction = np.arange(300).reshape(1, 3, 100)
    metric.process({}, [dict(pred_sem_seg=dict(data=torch.from_numpy(prediction)), img_path='x.jpg')])
    np.testing.assert_array_equal(load(tmp_path / 'x.png'), prediction[0])


def test_classes_as_floats_are_written(tmp_path):
    """As a head of one channel predicts them."""
    metric = ExactIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=('no', 'yes'))
    metric.process({}, [dict(pred_sem_seg=dict(data=torch.eye(4)[None]), img_path='x.jpg', reduce_zero_label=True)])
    np.testing.assert_array_equal(load(tmp_path / 'x.png'), np.eye(4) + 1)


def names(dataset, **kwargs):
    return sorted(target.name for target in plan_targets(dataset, **kwargs).values())


def test_names_stay_flat_where_they_can(tmp_path):
    draw(tmp_path, 's0', 'city/s1', 'town/a.b')
    dataset = dataset_of(CamVidDataset, tmp_path)
    assert names(dataset) == names(dataset, flat=True) == names(RepeatDataset(dataset, 3)) == ['a.b', 's0', 's1']


def test_equal_names_get_the_folders_of_their_images(tmp_path):
    draw(tmp_path, 'a/s0', 'b/s0', 'b/s1', values=(1, 2))
    dataset = dataset_of(CamVidDataset, tmp_path)
    assert names(dataset) == ['a/s0', 'b/s0', 'b/s1']
    predict_perfectly(dataset, tmp_path / 'out', plan_targets(dataset))
    for name in names(dataset):
        np.testing.assert_array_equal(load(tmp_path / f'out/{name}.png'), load(tmp_path / f'labels/{name}.png'))
    with pytest.raises(ConfigError, match='a/s0.jpg and .*b/s0.jpg would both be written to s0.png; rename one'):
        plan_targets(dataset, flat=True)


def test_equal_names_of_joined_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in ('night', 'day'):
        draw(tmp_path / root, 's0')
    joined = ConcatDataset([dataset_of(CamVidDataset, tmp_path / 'night'), dataset_of(CamVidDataset, 'day'),
                            dataset_of(CamVidDataset, tmp_path / 'night')])
    assert names(joined) == ['day/images/s0', 'night/images/s0']


def test_names_that_differ_in_their_suffix_only_are_refused(tmp_path):
    for suffix in ('.jpg', '.png'):
        draw(tmp_path, 's0', suffix=suffix)
    joined = ConcatDataset([dataset_of(CamVidDataset, tmp_path, img_suffix=end) for end in ('.png', '.jpg')])
    with pytest.raises(ConfigError, match='s0.png and .*s0.jpg would both be written to images/s0.png|to s0.png'):
        plan_targets(joined)


def test_folders_of_the_data_are_refused(tmp_path):
    draw(tmp_path, 'a/s0')
    (tmp_path / 'link').symlink_to(tmp_path / 'labels')
    dataset = RepeatDataset(dataset_of(CamVidDataset, tmp_path), 2)
    for folder in ('images', 'images/a', 'labels/a/', 'link', 'link/a'):
        with pytest.raises(ConfigError, match=f'--out {tmp_path}/{folder} is a folder of the images or labels'):
            refuse_data_folders(dataset, {f'{tmp_path}/{folder}': '--out'})
    refuse_data_folders(dataset, {f'{tmp_path}/{folder}': '--out' for folder in ('', 'out', 'images/a/out')})
