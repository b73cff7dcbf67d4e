import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_inceptionnext.datasets import CamVidDataset, CheckLabels
from mmseg_inceptionnext.errors import LabelError
from mmseg_inceptionnext.parts import SPLITS, find_datasets

from utils import ROOT

CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py')
                 if 'pipeline' in path.read_text())  # the others have those of their bases
STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckLabels')]


def results(label, **others):
    return dict(gt_seg_map=np.asarray(label, np.uint8), seg_map_path='a/b.png', ori_shape=np.shape(label)[:2], **others)


def accepts(label, num_classes, ignore_index):
    try:
        CheckLabels()(results(label, num_classes=num_classes, ignore_index=ignore_index))
    except LabelError:
        return False
    return True


@pytest.mark.parametrize('num_classes', [1, 2, 11, 150, 255, 256])
@pytest.mark.parametrize('ignore_index', [255, 0, 12, -100])
def test_every_value_is_judged_as_by_numpy(num_classes, ignore_index):
    for value in range(256):
        label = np.zeros((3, 5), np.uint8)
        label[1, 2] = value
        allowed = np.isin(label, [*range(num_classes), ignore_index]).all()
        assert accepts(label, num_classes, ignore_index) == allowed


def test_the_error_names_the_file_the_values_and_the_two_settings():
    label = [[0, 1, 2], [255, 200, 200]]
    with pytest.raises(LabelError) as error:
        CheckLabels()(results(label, num_classes=2, ignore_index=255, reduce_zero_label=True))
    text = str(error.value)
    for part in ('a/b.png: ', 'the label values 2, 200 (3 pixels)', 'allowed are 0 to 1, and 255', 'num_classes=2',
                 'reduce_zero_label=True', 'every other counts one less', 'tools/check_dataset.py'):
        assert part in text


@pytest.mark.parametrize('label,words', [
    (np.zeros((4, 6, 3)), 'has 3 channels'),
    (np.zeros((6, 4)), r'has 6 x 4 pixels \(H x W\), its image 4 x 6 as it is read: an EXIF'),
    (np.zeros((4, 5)), r'has 4 x 5 pixels \(H x W\), its image 4 x 6;'),
    (np.zeros(6), 'has a side of one pixel'),
])
def test_the_shape_is_judged(label, words):
    with pytest.raises(LabelError, match=f'a/b.png: the label {words}'):
        CheckLabels(num_classes=2)(dict(results(label), ori_shape=(4, 6)))


def test_arguments_come_before_the_dataset():
    label = [[3, 7]]
    assert CheckLabels(num_classes=4, ignore_index=7)(results(label, num_classes=1, ignore_index=255))
    with pytest.raises(LabelError, match='num_classes=3'):
        CheckLabels(num_classes=3, ignore_index=7)(results(label))
    assert CheckLabels()(results(label)), 'where nothing says how many classes there are, any value is allowed'
    assert CheckLabels()(dict(img=1)) == dict(img=1), 'an image that is only segmented has no label'


def test_a_subset_of_the_classes_is_counted_after_the_mapping(tmp_path):
    for folder, array in (('images', np.zeros((4, 11, 3))), ('annotations', np.arange(11)[None].repeat(4, 0))):
        (tmp_path / folder).mkdir()
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f'a.{"jpg" if folder == "images" else "png"}')
    options = dict(data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='annotations'))
    dataset = CamVidDataset(metainfo=dict(classes=('road', 'car')), pipeline=STEPS, **options)
    assert dataset[0]['gt_seg_map'][0].tolist() == [255, 255, 255, 0, 255, 255, 255, 255, 1, 255, 255]
    info = dataset.get_data_info(0)
    info['label_map'][5] = 2  # one more than there are classes
    with pytest.raises(LabelError, match='the label values 2 .4 pixels. are out of range: allowed are 0 to 1'):
        dataset.pipeline(info)


def test_every_config_checks_right_behind_loading():
    assert len(CONFIGS) >= 10
    for name in CONFIGS:
        cfg = Config.fromfile(str(ROOT / name))
        pipelines = [dataset.pipeline for split in SPLITS for _, dataset in find_datasets(cfg, split)]
        pipelines.append([step for branch in cfg.tta_pipeline[-1].transforms for step in branch])
        for pipeline in pipelines:
            kinds = [step.type for step in pipeline]
            assert kinds.count('CheckLabels') == 1, name
            assert kinds.index('CheckLabels') == kinds.index('LoadAnnotations') + 1, name


def test_the_class_prints_as_a_config_says_it():
    step = TRANSFORMS.build(Config(dict(step=dict(type='CheckLabels', num_classes=3))).step)
    assert repr(step) == 'CheckLabels(num_classes=3, ignore_index=None)'
