import sys

import cv2
import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from mmseg_inceptionnext.datasets import CamVidDataset, make_toy_ade20k
from mmseg_inceptionnext.datasets.toy_ade20k import CLASSES, label_of

from utils import ROOT

PREFIX = dict(img_path='images/train', seg_map_path='annotations/train')


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


@pytest.mark.parametrize('name,layout,archive', [
    ('ADEChallengeDataset', 'annotations/training', 'ADEChallengeData2016.zip'),
    ('CamVidDataset', 'annotations/train', 'CamVid'),
])
def test_a_missing_folder_is_one_clear_message(tmp_path, name, layout, archive):
    root = str(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError) as error:
        DATASETS.build(dict(type=name, data_root=root, data_prefix=PREFIX))
    text = str(error.value)
    for part in (f'{root}/images/train is not a folder', layout, archive, '--data-root DIR',
                 'fpn_inceptionnext_a_toy.py'):
        assert part in text


def test_a_folder_without_images_is_named(tmp_path):
    write(tmp_path / 'images/train/a.png', np.zeros((4, 4, 3), np.uint8))
    (tmp_path / 'annotations/train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r'images/train holds no file that ends in \.jpg'):
        CamVidDataset(data_root=str(tmp_path), data_prefix=PREFIX)


def test_camvid_takes_other_suffixes(tmp_path):
    write(tmp_path / 'images/train/a.png', np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / 'annotations/train/a_L.png', np.zeros((4, 4), np.uint8))
    dataset = CamVidDataset(img_suffix='.png', seg_map_suffix='_L.png', data_root=str(tmp_path), data_prefix=PREFIX)
    item = dataset[0]
    assert item['img_path'].endswith('images/train/a.png')
    assert item['seg_map_path'].endswith('annotations/train/a_L.png')
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 11
    assert [each['img_path'] for each in dataset] == [dataset[-1]['img_path']]  # a loop over it ends


def test_camvid_as_it_is(camvid):
    dataset = CamVidDataset(data_root=str(camvid), data_prefix=PREFIX,
                            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
    assert len(dataset) == 367
    item = dataset[0]
    assert item['img'].shape[:2] == item['gt_seg_map'].shape == (360, 480)
    assert set(np.unique(item['gt_seg_map'])) <= {*range(11), 255}


def test_ade20k_keeps_the_stock_classes_and_ignores_zero(toy_root):
    dataset = DATASETS.build(dict(
        type='ADEChallengeDataset', data_root=str(toy_root),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]))
    assert dataset.metainfo['classes'] == ADE20KDataset.METAINFO['classes'] and dataset.metainfo['reduce_zero_label']
    item = dataset[0]
    raw = cv2.imread(item['seg_map_path'], cv2.IMREAD_UNCHANGED)
    expected = np.where(raw == 0, 255, raw.astype(int) - 1)
    np.testing.assert_array_equal(item['gt_seg_map'], expected)


def test_every_module_is_imported():
    """So that the file of a new data set is all that registers it."""
    names = {path.stem for path in (ROOT / 'mmseg_inceptionnext/datasets').glob('*.py')} - {'__init__'}
    assert {f'mmseg_inceptionnext.datasets.{name}' for name in names} <= set(sys.modules)


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def test_toy_data_is_the_same_for_the_same_seed(tmp_path):
    for name, seed, count in (('a', 0, 2), ('b', 0, 3), ('c', 1, 2)):
        make_toy_ade20k(str(tmp_path / name), num_train=count, num_val=1, seed=seed)
    a, b, c = (files_of(tmp_path / name) for name in 'abc')
    assert len(a) == 6 and {name: b[name] for name in a} == a
    assert a.keys() == c.keys() and all(a[name] != c[name] for name in a)


def test_toy_data_has_the_layout_and_labels_of_ade20k(tmp_path):
    make_toy_ade20k(str(tmp_path), num_train=12, num_val=3)
    seen = set()
    for split, count in (('training', 12), ('validation', 3)):
        images = sorted((tmp_path / 'images' / split).glob('*.jpg'))
        assert len(images) == count
        for path in images:
            label = cv2.imread(str(tmp_path / 'annotations' / split / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
            assert label.dtype == np.uint8 and label.shape == cv2.imread(str(path)).shape[:2]
            seen |= set(np.unique(label).tolist())
    assert seen == {0, *(label_of(name) for name in CLASSES)} and len(CLASSES) >= 10
    assert label_of('sky') == 3 and label_of('person') == 13  # ADE20K's own numbers


def test_toy_data_refuses_negative_counts(tmp_path):
    with pytest.raises(ValueError, match='num_train=-1'):
        make_toy_ade20k(str(tmp_path), num_train=-1)
