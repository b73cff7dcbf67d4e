"""Labels and images that steps of one's own load: found by what the steps do, and checked as these give them."""
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmcv.transforms import LoadAnnotations as LoadByMMCV
from mmengine.config import Config
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import check_dataset
from mmseg_inceptionnext.datasets.steps import loads_labels
from mmseg_inceptionnext.errors import BrokenSampleError, ConfigError, LabelError
from mmseg_inceptionnext.evaluation.protocol import without_labels

from utils import ROOT, TOY, narrow

COLOURS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]])
IMAGE = dict(type='LoadImageFromFile')


@TRANSFORMS.register_module()
class ColourMasks(BaseTransform):
    """Of the class of each colour, int64; other colours are ignored."""

    def transform(self, results):
        colours = np.array(Image.open(results['seg_map_path']))
        height, width, _ = colours.shape
        label = np.full((height, width), 255)
        for i, colour in enumerate(COLOURS):
            label[(colours == colour).all(-1)] = i
        results['gt_seg_map'] = label
        results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class GivenByGet(BaseTransform):
    """Does not say what it misses."""

    def transform(self, results):
        path = results.get('seg_map_path')
        return dict(results, gt_seg_map=np.array(Image.open(path).convert('L')))


@TRANSFORMS.register_module()
class BesideTheImage(BaseTransform):
    """Makes the path of the label from that of the image."""

    def transform(self, results):
        label = np.load(results['img_path'].replace('images', 'labels')[:-3] + 'npy')
        results['gt_seg_map'] = label
        return results


@TRANSFORMS.register_module()
class Halves(LoadAnnotations):
    def _load_seg_map(self, results):
        super()._load_seg_map(results)
        results['gt_seg_map'] //= 128


@TRANSFORMS.register_module()
class MergeClasses(BaseTransform):
    def transform(self, results):
        results['gt_seg_map'][results['gt_seg_map'] == 255] = 1
        return results


@TRANSFORMS.register_module()
class Brighter(BaseTransform):
    def transform(self, results):
        return dict(results, img=results['img'] + 1)


@TRANSFORMS.register_module()
class ShiftBoth(BaseTransform):
    """Changes the image, too, so that to leave it out would change what is predicted."""

    def transform(self, results):
        return dict(results, img=results['img'][::-1], gt_seg_map=results['gt_seg_map'][::-1])


@TRANSFORMS.register_module()
class FlipWhatIsThere(BaseTransform):
    def transform(self, results):
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = results[key][:, ::-1]
        if results.get('gt_seg_map') is not None:
            results['gt_seg_map'] = results['gt_seg_map'].copy()
        return results


@TRANSFORMS.register_module()
class NeedsMore(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] * results['gain'] + ('gt_seg_map' in results)
        return results


@TRANSFORMS.register_module()
class FromNumPy(BaseTransform):
    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


@pytest.mark.parametrize('kind', [LoadAnnotations, LoadByMMCV, ColourMasks, GivenByGet, BesideTheImage, Halves,
                                  MergeClasses])
def test_what_loads_or_changes_only_labels_is_left_out(kind):
    assert loads_labels(kind()) and loads_labels(dict(type=kind)) and loads_labels(dict(type=kind.__name__))
    inner = [dict(type='RandomApply', transforms=[dict(type=kind)]), dict(type='RandomChoice', transforms=[
        [dict(type=kind)]]), dict(type='KeyMapper', transforms=dict(type=kind))]
    views = dict(type='TestTimeAug', transforms=[[dict(type=kind)], [dict(type='Resize', scale=(8, 8))]])
    pack = dict(type='PackSegInputs')
    assert without_labels([IMAGE, dict(type=kind), *inner, views, pack]) == [
        IMAGE, dict(views, transforms=views['transforms'][1:]), pack]


@pytest.mark.parametrize('kind', ['LoadImageFromFile', 'LoadImageFromNDArray', 'CheckLabels', 'PackSegInputs', Brighter,
                                  ShiftBoth, FlipWhatIsThere, NeedsMore, FromNumPy, 'NoSuchStep', np.copy])
def test_what_images_need_stays(kind):
    steps = [dict(type=kind), dict(type='RandomApply', transforms=[dict(type=kind)], prob=0.5)]
    assert not loads_labels(steps[0]) and without_labels(steps) == steps


def test_a_model_predicts_by_a_config_whose_labels_a_step_of_ones_own_loads(tmp_path):
    cfg = load_config(str(ROOT / TOY))
    narrow(cfg.model)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta={}), tmp_path / 'model.pth')
    for pipeline in (cfg.test_dataloader.dataset.pipeline, cfg.tta_pipeline[-1].transforms):
        for i, step in enumerate(pipeline):
            if 'LoadAnnotations' in str(step):
                pipeline[i] = type(step)([dict(type='ColourMasks')]) if isinstance(step, list) else dict(
                    type='ColourMasks')
    cfg.dump(str(tmp_path / 'config.py'))
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / 'image.png')
    for tta in (False, True):
        segmenter = Segmenter(str(tmp_path / 'model.pth'), str(tmp_path / 'config.py'), tta=tta)
        assert segmenter(str(tmp_path / 'image.png')).mask.shape == (40, 60)


def write(root, labels, suffix='png', images='jpg'):
    for folder in ('images', 'labels'):
        (root / folder).mkdir(exist_ok=True)
    for i, label in enumerate(labels):
        label = np.asarray(label)
        image = np.zeros((*label.shape[:2], 3), np.uint8)
        for path, array in ((root / f'images/{i}.{images}', image), (root / f'labels/{i}.{suffix}', label)):
            np.save(path, array) if path.suffix == '.npy' else Image.fromarray(array.astype(np.uint8)).save(path)


def dataset(root, *steps, **options):
    prefix = dict(img_path='images', seg_map_path='labels')
    return dict(dict(type='FolderDataset', data_root=str(root), data_prefix=prefix, serialize_data=False, pipeline=[
        *(step if isinstance(step, dict) else dict(type=step) for step in steps), dict(type='CheckLabels')],
        metainfo=dict(classes=('a', 'b', 'c'))), **options)


def check(root, *steps, **options):
    return check_dataset(Config(dict(train_dataloader=dict(dataset=dataset(root, *steps, **options)))), ['train'])[0]


def counts(report):
    return [row['pixels'] for row in report.to_dict()['classes']]


@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_masks_in_colours_are_checked_as_their_step_gives_them(tmp_path, reduce_zero_label):
    labels = [COLOURS[[[0, 1, 1, 2]] * 3], np.full((3, 4, 3), 9)]
    write(tmp_path, labels[:1])
    options = dict(reduce_zero_label=reduce_zero_label)
    report = check(tmp_path, IMAGE, ColourMasks, **options)
    assert not report.problems and counts(report) == [3, 6, 3]
    write(tmp_path, labels)
    report = check(tmp_path, IMAGE, ColourMasks, **options)
    assert [problem[:2] for problem in report.problems] == [('warning', 'nothing labelled')]
    assert report.to_dict()['values'] == {'0': 3, '1': 6, '2': 3, '255': 12}
    for kind in ('FolderDataset', 'BaseSegDataset'):
        assert set(np.unique(DATASETS.build(dataset(tmp_path, IMAGE, ColourMasks, type=kind))[0]['gt_seg_map'])) == {
            0, 1, 2}


def test_what_an_own_step_does_behind_loading_counts(tmp_path):
    write(tmp_path, [[[0, 255, 2]] * 2])
    assert counts(check(tmp_path, IMAGE, 'LoadAnnotations', MergeClasses)) == [2, 2, 2]
    assert counts(check(tmp_path, IMAGE, Halves)) == [4, 2, 0]


@TRANSFORMS.register_module()
class SaysWhere(BaseTransform):
    def transform(self, results):
        return dict(results, rows=slice(1, None))


@TRANSFORMS.register_module()
class TakesThere(LoadAnnotations):
    def _load_seg_map(self, results):
        rows = results['rows']
        super()._load_seg_map(results)
        results['gt_seg_map'] = results['gt_seg_map'][rows]


def test_a_step_of_ones_own_may_need_what_another_says(tmp_path):
    write(tmp_path, [[[0, 1]] * 3])
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/0.jpg')
    report = check(tmp_path, IMAGE, SaysWhere, TakesThere)
    assert not report.problems and counts(report) == [2, 2, 0]
    write(tmp_path, [[[0, 1]] * 3])
    assert counts(check(tmp_path, IMAGE, SaysWhere, Brighter, 'LoadAnnotations')) == [3, 3, 0]


def test_labels_beside_the_image_and_images_of_an_own_step(tmp_path):
    write(tmp_path, [np.full((3, 4), 2), np.full((3, 4), 700)], 'npy', 'npy')
    options = dict(img_suffix='.npy', seg_map_suffix='.npy')
    report = check(tmp_path, FromNumPy, BesideTheImage, **options)
    assert counts(report) == [0, 0, 12] and [problem[1:3] for problem in report.problems] == [
        ('label values', f'{tmp_path}/labels/1.npy')]
    np.save(tmp_path / 'labels/1.npy', np.ones((4, 3)))
    assert 'the label has 4 x 3 pixels' in check(tmp_path, FromNumPy, BesideTheImage, **options).to_text()
    (tmp_path / 'images/1.npy').write_bytes(b'no array')
    problem, = check(tmp_path, FromNumPy, BesideTheImage, **options).problems
    assert problem[:3] == ('error', 'unreadable image', f'{tmp_path}/images/1.npy')
    assert problem.message.startswith('FromNumPy ends with ')


def test_an_error_of_an_own_step_is_a_problem_of_its_file(tmp_path):
    write(tmp_path, [COLOURS[[[0, 1]] * 3], [[0, 1]] * 3, [[0, 1]] * 3])
    (tmp_path / 'labels/2.png').unlink()
    report = check(tmp_path, IMAGE, ColourMasks)
    assert counts(report) == [3, 3, 0]
    assert [problem[1:] for problem in report.problems] == [
        ('unreadable label', f'{tmp_path}/labels/1.png',
         'ColourMasks ends with ValueError: not enough values to unpack (expected 3, got 2)'),
        ('image without label', f'{tmp_path}/labels/2.png',
         f"ColourMasks ends with FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/labels/2.png'")]


def test_a_file_that_an_own_step_misses_is_named_or_skipped(tmp_path):
    write(tmp_path, [COLOURS[[[0, 1]] * 3]] * 2)
    (tmp_path / 'labels/1.png').unlink()
    raising, skipping = (DATASETS.build(dataset(tmp_path, IMAGE, ColourMasks, on_error=how))
                         for how in ('raise', 'skip'))
    with pytest.raises(BrokenSampleError, match='labels/1.png: cannot be opened: No such file'):
        raising[1]
    assert skipping[1]['img_path'].endswith('0.jpg')


@pytest.mark.parametrize('dtype', [np.int64, np.int32, np.uint16, np.float32, bool])
def test_labels_of_any_type_are_judged(tmp_path, dtype):
    step = TRANSFORMS.build(dict(type='CheckLabels', num_classes=2, ignore_index=255))
    good = dict(gt_seg_map=np.array([[0, 1]], dtype), ori_shape=(1, 2))
    assert step(good) is good
    if dtype is not bool:
        with pytest.raises(LabelError, match=r'the label values 254, 700 \(2 pixels\) are out of range'):
            step(dict(good, gt_seg_map=np.array([[254, 700, 255]], dtype), ori_shape=(1, 3)))
    if dtype is np.float32:
        with pytest.raises(LabelError, match=r'the label values 0.5 \(1 pixels\)'):
            step(dict(good, gt_seg_map=np.array([[0.5, 1]], dtype)))


def test_more_classes_than_a_byte_holds(tmp_path):
    write(tmp_path, [np.full((3, 4), 700)], 'npy')
    many = dict(metainfo=dict(classes=tuple(map(str, range(1000)))), seg_map_suffix='.npy')
    assert not check(tmp_path, IMAGE, BesideTheImage, **many).problems


def test_an_own_image_loader_may_be_a_subclass(tmp_path):
    class Twice(LoadImageFromFile):
        def transform(self, results):
            results = super().transform(results)
            return dict(results, img=results['img'].repeat(2, 0), ori_shape=(6, 4))

    write(tmp_path, [np.ones((6, 4))])
    Image.new('RGB', (4, 3)).save(tmp_path / 'images/0.jpg')
    assert not check(tmp_path, dict(type=Twice), 'LoadAnnotations').problems


@TRANSFORMS.register_module()
class BothAtOnce(BaseTransform):
    """Loads the image and the label."""

    def transform(self, results):
        results['img'] = np.array(Image.open(results['img_path']))
        return dict(results, gt_seg_map=np.array(Image.open(results['seg_map_path'])))


class BothIfAny(BothAtOnce):
    """Loads the image, and the label if there is one."""

    def transform(self, results):
        return super().transform(results) if 'seg_map_path' in results else dict(results, img=0)


def test_a_step_that_loads_image_and_label_is_to_be_split():
    for step in (dict(type='BothAtOnce'), BothAtOnce()):
        with pytest.raises(ConfigError, match='BothAtOnce of the pipeline loads both .* split it'):
            loads_labels(step)
    assert not loads_labels(BothIfAny())
