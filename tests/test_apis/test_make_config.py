from pathlib import Path

import numpy as np
import own_data
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from more_own_data import MORE, several
from own_data import COLORS, DRAWN, FOLDERS, draw
from PIL import Image

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.apis.make_config import Options, look, make_config, plot, shares
from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.datasets import CamVidDataset
from mmseg_inceptionnext.datasets.check import check_dataset
from mmseg_inceptionnext.datasets.folders import FolderDataset
from mmseg_inceptionnext.engine import build_runner
from mmseg_inceptionnext.engine.check.settings import check_settings
from mmseg_inceptionnext.engine.hooks import CompleteCheckpointHook
from mmseg_inceptionnext.errors import InputError, UserError
from mmseg_inceptionnext.inference import Segmenter

from utils import ROOT, content, narrow, run_tool


def made(name, tmp_path, **options):
    root = draw(name, tmp_path / 'my data')
    options = dict(dict(classes=FOLDERS[name][1], head='fpn', arch='a', pretrained='none'), **options)
    out = tmp_path / 'my.py'
    out.unlink(missing_ok=True)
    told, text, _ = make_config(Options(str(root), str(out), str(ROOT / 'configs'), 'python ...', **options))
    return load_config(str(out)), told, text


@pytest.mark.parametrize('name', FOLDERS)
def test_each_folder_becomes_a_config_whose_labels_are_right(name, tmp_path):
    cfg, told, text = made(name, tmp_path)
    assert len(text.splitlines()) <= 40
    init_default_scope('mmseg')
    seen = 0
    for split in ('train', 'val'):
        settings = cfg[f'{split}_dataloader'].dataset
        steps = [step for step in settings.pipeline if step.type.startswith(('Load', 'Check'))]
        dataset = DATASETS.build(dict(settings, pipeline=steps, serialize_data=False))  # which is slow
        for sample in dataset:
            found, seen = sample['gt_seg_map'], seen + 1
            expected, kept = np.array(FOLDERS[name][2], np.uint8)[DRAWN[sample['img_path']]], found != 255
            assert (found == expected)[kept].mean() > (0.98 if 'jpeg' in name else 0.9999)
            assert kept.mean() == (46 / 48 if name in ('voc', 'ones') else 1)
    assert seen >= 6


@pytest.mark.filterwarnings('ignore:Palette images')
@pytest.mark.parametrize('name', MORE)
def test_more_members_of_each_kind_have_the_right_labels(name, tmp_path):
    root = draw(name, tmp_path / 'data', MORE)
    found = look(Options(str(root), '', '', '', MORE[name][1]))
    seen, steps = 0, [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckLabels')]
    for split in found.layout.splits.values():
        (tmp_path / 'list.txt').write_text('\n'.join(split.names))
        dataset = FolderDataset(
            data_root=str(root), data_prefix=dict(img_path=split.img_path, seg_map_path=split.seg_map_path),
            split_file=str(tmp_path / 'list.txt') if split.listed else '', classes=found.assignment.names,
            label_map=found.assignment.label_map, colors=found.assignment.colors, pipeline=steps,
            serialize_data=False, img_suffix=found.layout.img_suffix, seg_map_suffix=found.layout.seg_map_suffix)
        for sample in dataset:
            expected, seen = np.array(MORE[name][2], np.uint8)[DRAWN[sample['img_path']]], seen + 1
            assert sample['img'].shape[:2] == expected.shape
            assert (sample['gt_seg_map'] == expected).mean() > (0.98 if 'jpeg' in name else 0.9999)
    assert seen == sum(path.startswith(f'{root}/') for path in DRAWN) - (name == 'blind')


def refused(tmp_path, root, **options):
    (tmp_path / 'my.py').unlink(missing_ok=True)
    with pytest.raises(UserError) as error:
        options = dict(dict(classes='sky,road,car', head='fpn', arch='a', pretrained='none'), **options)
        make_config(Options(str(root), str(tmp_path / 'my.py'), str(ROOT / 'configs'), 'python ...', **options))
    assert not (tmp_path / 'my.py').exists()
    return str(error.value)


@pytest.mark.parametrize('name', ['voc', 'jpeg_labels', 'two_folders', 'img_dir', 'ade'])
def test_the_shares_of_the_classes(name, tmp_path):
    _, _, found = remade(draw(name, tmp_path / 'data'), tmp_path, classes=FOLDERS[name][1])
    classes = [np.array(FOLDERS[name][2])[label[2 * (name == 'voc'):]] for path, label in DRAWN.items()
               if path.startswith(str(tmp_path))]
    expected = np.bincount(np.stack(classes).ravel()) / np.stack(classes).size
    assert list(shares(found).values()) == pytest.approx(expected.tolist(), abs=0.01)


def test_what_cannot_be_told_is_asked_for(tmp_path):
    root = draw('ade', tmp_path / 'data')
    assert 'give them by --classes' in refused(tmp_path, root, classes=None)
    assert 'is named twice' in refused(tmp_path, root, classes='sky,sky,car')
    assert 'names 2 classes, and the labels hold 2 (6.' in refused(tmp_path, root, classes='sky,road', zero='class')
    assert 'no such folder' in refused(tmp_path, tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    assert '0 images and 0 labels' in refused(tmp_path, tmp_path / 'empty')
    with pytest.raises(UserError, match='ends in .py'):
        make_config(Options(str(root), str(tmp_path / 'my.txt'), '', ''))


def test_colours_that_no_class_has_are_listed_with_a_file(tmp_path):
    root = draw('voc', tmp_path / 'data')
    (root / 'classes.txt').write_text('sky 70 130 180\nroad 128 64 128\ncar 0 0 142\n')
    text = refused(tmp_path, root, classes=None)
    assert '(224, 224, 192) (4.2 % of the pixels, as in ' in text and 'SegmentationClass/2007_0.png' in text
    (root / 'classes.txt').unlink()
    assert 'the labels are colours' in refused(tmp_path, root)


def test_pairs_that_are_none_are_named(tmp_path):
    root = draw('plain', tmp_path / 'data')
    Image.new('L', (20, 20)).save(root / 'gt/sub 0/0.png')
    assert '64 x 48 pixels, its label' in refused(tmp_path, root, classes=None)
    (root / 'gt/sub 0/0.png').write_bytes(b'no image')
    assert 'cannot be decoded as a label' in refused(tmp_path, root, classes=None)
    (root / 'gt/sub 0/0.png').unlink()
    cfg, told, _ = remade(root, tmp_path)
    assert '1 images in photos have no label and are left out, such as sub 0/0' in told
    assert len((tmp_path / 'my_splits/train.txt').read_text().splitlines()) == 6


def remade(root, tmp_path, **options):
    options = dict(dict(head='fpn', arch='a', pretrained='none'), **options)
    out = str(tmp_path / 'my.py')
    Path(out).unlink(missing_ok=True)
    told, text, found = make_config(Options(str(root), out, str(ROOT / 'configs'), 'python ...', **options))
    return load_config(out), told, found


def test_zero_is_a_class_or_ignored_as_said(tmp_path):
    root = draw('ones', tmp_path / 'data')
    cfg, told, _ = remade(root, tmp_path, classes='sky,road,car')
    assert '0 is no class and ignored' in told and cfg.train_dataloader.dataset.label_map[0] == 255
    cfg, told, _ = remade(root, tmp_path, classes='other,sky,road,car')
    assert '0 is the class other' in told and 'label_map' not in cfg.train_dataloader.dataset
    cfg, told, found = remade(root, tmp_path, classes='sky,road,car,boat', zero='ignore', class_weights=True)
    assert 'never occurs' in told and list(shares(found))[-1] == 'boat' and shares(found)['boat'] == 0
    assert len(cfg.model.decode_head.loss_decode.class_weight) == 4


def test_a_split_is_the_same_for_the_same_seed(tmp_path):
    root = draw('side_by_side', tmp_path / 'data')
    lists = []
    for seed, share in ((0, 0.25), (0, 0.25), (1, 0.25), (0, 0.5)):
        remade(root, tmp_path, classes='sky,road,car', seed=seed, val_share=share)
        lists.append((tmp_path / 'my_splits/val.txt').read_text().split())
    assert lists[0] == lists[1] != lists[2] and [len(found) for found in lists] == [2, 2, 2, 4]
    assert 'would be for validation' in refused(tmp_path / 'new', root, val_share=0.99)


@pytest.mark.parametrize('head, arch', [('upernet', 't'), ('upernet', 'b'), ('fpn', 's')])
def test_every_head_and_size_builds(head, arch, tmp_path):
    cfg, _, _ = remade(draw('ade', tmp_path / 'data'), tmp_path, classes='sky,road,car', head=head, arch=arch,
                       pretrained=None)
    assert cfg.model.backbone.init_cfg.checkpoint.startswith('https://')
    cfg.model.backbone.pop('init_cfg')
    with torch.device('meta'):
        model = build_model(cfg, 'my.py')
    assert model.num_classes == 3
    check_settings(cfg, 'train', 'val')
    recipe = load_config(str(ROOT / f'configs/{head}_inceptionnext_{arch}_ade20k.py'))
    share = cfg.train_dataloader.batch_size / recipe.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(share * recipe.optim_wrapper.optimizer.lr)
    assert cfg.model.backbone.drop_path_rate == recipe.model.backbone.drop_path_rate
    kinds = [step.type for step in cfg.val_dataloader.dataset.pipeline]
    assert kinds == ['LoadImageFromFile', 'ResizeToMultiple', 'LoadAnnotations', 'CheckLabels', 'PackSegInputs']


def test_a_trained_segmentor_can_be_the_start(tmp_path):
    cfg, _, _ = remade(draw('ade', tmp_path / 'data'), tmp_path, classes='sky,road,car', load_from='old.pth')
    assert cfg.load_from == 'old.pth' and cfg.model.backbone.init_cfg.type == 'TruncNormal'  # nothing is downloaded
    cfg, _, _ = remade(tmp_path / 'data', tmp_path, classes='sky,road,car', pretrained='mine.pth')
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mine.pth')


def test_the_numbers_are_drawn(tmp_path):
    _, _, found = remade(draw('voc', tmp_path / 'data'), tmp_path)
    plot(found, str(tmp_path / 'plot.png'))
    assert Image.open(tmp_path / 'plot.png').size[0] > 500


def test_camvid_in_its_own_colours_has_the_same_labels(camvid, tmp_path):
    meta = CamVidDataset.METAINFO
    lines = [f'{name} {" ".join(map(str, color))}' for name, color in zip(meta['classes'], meta['palette'])]
    colors = np.zeros((256, 3), np.uint8)
    colors[:11] = meta['palette']
    for split in ('train', 'val'):
        (tmp_path / f'data/labels/{split}').mkdir(parents=True)
        (tmp_path / f'data/images/{split}').mkdir(parents=True)
        for path in sorted((camvid / f'images/{split}').iterdir())[:20]:
            (tmp_path / f'data/images/{split}/{path.name}').symlink_to(path)
            ids = np.asarray(Image.open(camvid / f'annotations/{split}/{path.stem}.png'))
            Image.fromarray(colors[ids]).save(tmp_path / f'data/labels/{split}/{path.stem}.png')
    (tmp_path / 'data/classes.txt').write_text('\n'.join([*lines, 'void 0 0 0']))
    cfg, _, _ = remade(tmp_path / 'data', tmp_path)
    prefix = dict(img_path='images/val', seg_map_path='annotations/val')
    for steps in ([dict(type='LoadAnnotations')], [dict(type='LoadAnnotations'), dict(type='CheckLabels')]):
        settings = cfg.val_dataloader.dataset
        ours = DATASETS.build(dict(settings, pipeline=steps))
        theirs = DATASETS.build(dict(type='CamVidDataset', data_root=str(camvid), data_prefix=prefix, pipeline=steps))
        for i in range(len(ours)):
            np.testing.assert_array_equal(ours[i]['gt_seg_map'], theirs[i]['gt_seg_map'])
    assert len(ours) == 20


@pytest.fixture(scope='module')
def segmentor_of_five(tmp_path_factory):
    """A folder of three classes, and the work dir of a segmentor that was trained with two more."""
    folder = tmp_path_factory.mktemp('five')
    cfg, _, _ = remade(draw('ade', folder / 'data'), folder, classes='sky,road,car,boat,tree')
    train(short(cfg, folder / 'work'))
    return folder


def short(cfg, work_dir, iterations=2):
    """A config for a short run in this process."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '_'.join(work_dir.parts[-2:])  # runs of one name and second share a log
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{split}_dataloader'].dataset.serialize_data = False  # which is slow
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    cfg.default_hooks.checkpoint.interval = iterations
    return cfg


@pytest.mark.slow
def test_a_trained_segmentor_of_other_classes_is_kept_but_for_what_classifies(segmentor_of_five, tmp_path):
    source = segmentor_of_five / 'work/iter_2.pth'
    cfg, _, _ = remade(segmentor_of_five / 'data', tmp_path, classes='sky,road,car', load_from=str(source))
    runner = build_runner(short(cfg.copy(), tmp_path / 'start'))
    runner.register_hook(CompleteCheckpointHook(may_differ=True))
    runner.load_or_resume()
    own, given = runner.model.state_dict(), content(source)['state_dict']
    new = {key for key, value in own.items() if value.shape != given[key].shape}
    assert own.keys() == given.keys() and new == {f'decode_head.conv_seg.{part}' for part in ('weight', 'bias')}
    assert all(torch.equal(own[key], given[key]) for key in own.keys() - new)
    train(short(cfg, tmp_path / 'work'))
    log, = (tmp_path / 'work').glob('*/*.log')
    assert (f'load_from: {len(own) - 2}/{len(own)} tensors from {source}; what classifies is of another number of '
            'classes and starts anew') in log.read_text()
    assert 'decode_head.conv_seg.weight (5, 128, 1, 1), the model has (3, 128, 1, 1)' in log.read_text()


@pytest.mark.slow
def test_a_segmentor_that_does_not_fit_is_no_start(segmentor_of_five, tmp_path):
    cfg, _, _ = remade(segmentor_of_five / 'data', tmp_path, classes='sky,road,car', arch='t',
                       load_from=str(segmentor_of_five / 'work/iter_2.pth'))
    with pytest.raises(UserError, match='do not fit the model of the config'):
        train(short(cfg, tmp_path / 'work'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['voc', 'two_folders'])
def test_a_config_is_checked_trained_evaluated_and_used(name, tmp_path):
    cfg, _, _ = made(name, tmp_path)
    narrow(cfg.model)
    cfg.model.neck.out_channels = cfg.model.decode_head.channels = 16
    cfg.model.decode_head.in_channels = [16] * 4
    short(cfg, tmp_path / 'work', iterations=1).default_hooks.checkpoint.save_best = None
    assert not any(report.count('error') for report in check_dataset(cfg, ('train', 'val'), jobs=1))
    train(cfg.copy())
    metrics = evaluate(cfg, str(tmp_path / 'work/iter_1.pth'), out=str(tmp_path / 'png'))
    assert 0 <= metrics['aAcc'] <= 100
    values_in(tmp_path / 'png', name)
    segmenter = Segmenter(str(tmp_path / 'work/iter_1.pth'))
    assert set(segmenter(np.zeros((40, 50, 3), np.uint8)).classes) <= set(cfg.train_dataloader.dataset.classes)


def values_in(folder, name):
    """Predictions hold the values or the colours of the data set's own labels, and nothing else."""
    pixels = [np.asarray(Image.open(path)) for path in folder.rglob('*.png')]
    found = {tuple(color) if array.ndim == 3 else color for array in pixels
             for color in (array.reshape(-1, 3) if array.ndim == 3 else array.ravel()).tolist()}
    of_folder = dict(two_folders={0, 255}, img_dir={7, 307, 607}, cityscapes={7, 23, 26}, ones={1, 2, 3})
    in_colors = ('voc', 'split_above', 'jpeg_labels', 'json_colors')
    assert pixels and found <= of_folder.get(name, set(COLORS) if name in in_colors else {0, 1, 2})


@pytest.mark.slow
@pytest.mark.parametrize('name', FOLDERS)
def test_every_tool_takes_such_a_config(name, tmp_path):
    root, out = draw(name, tmp_path / 'mein Ordner'), tmp_path / 'my.py'
    classes = ['--classes', FOLDERS[name][1]] if FOLDERS[name][1] else []
    work, loaders = tmp_path / 'work', ('train', 'val', 'test')
    options = [f'{split}_dataloader.num_workers=0' for split in loaders] + [
        'train_cfg.max_iters=20', 'train_cfg.val_interval=20', 'default_hooks.checkpoint.interval=20']
    run_tool('tools/make_config.py', root, '--out', out, '--head=fpn', '--arch=a', '--pretrained=none', *classes)
    run_tool('tools/check_dataset.py', out, '--jobs', 1)
    run_tool('tools/train.py', out, '--work-dir', work, '--cfg-options', *options)
    run_tool('tools/test.py', out, work / 'iter_20.pth', '--work-dir', work, '--out', tmp_path / 'png',
             '--cfg-options', *options)
    values_in(tmp_path / 'png', name)
    run_tool('tools/infer.py', work / 'iter_20.pth', root, '--out-dir', tmp_path / 'out')
    run_tool('tools/visualize_dataset.py', out, '--num', 2, '--out-dir', tmp_path / 'samples')
    assert len(list((tmp_path / 'samples').iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize('size', [(20, 20), (2100, 64)])
def test_images_of_any_size_train_and_are_predicted(size, tmp_path, monkeypatch):
    """Of 20 pixels the crop is larger than the image; large ones are predicted in windows."""
    monkeypatch.setattr(own_data, 'SIZE', size)
    cfg, _, text = made('mixed_suffixes', tmp_path, classes='sky,road,car')
    assert ('slide' in text) == (size[0] > 2048)
    cfg.train_dataloader.batch_size = 2
    train(short(cfg.copy(), tmp_path / 'work', iterations=1))
    assert 'mIoU' in evaluate(cfg, str(tmp_path / 'work/iter_1.pth'))


def test_an_empty_validation_set_is_drawn_from_training_and_two_lists_are_compared(tmp_path):
    root = draw('mixed_suffixes', tmp_path / 'data')
    for folder in ('images/val', 'labels/val'):
        (root / folder).mkdir()
    (root / 'images/val/z.png').write_bytes((root / 'images/1.png').read_bytes())
    _, told, _ = remade(root, tmp_path, classes='sky,road,car')
    assert '1 images in images/val have no label and are left out, such as z' in told
    assert '2 of 8 pairs, drawn with seed 0, are for validation' in told
    (root / 'train.txt').write_text('0\n1\n2\n3\nmissing')
    (root / 'val.txt').write_text('3\n4')
    _, told, _ = remade(root, tmp_path, classes='sky,road,car')
    for sentence in ('train has 4 pairs, val has 2 pairs', '1 names in', 'have no pair, such as missing',
                     '3 pairs are in no list and left out, such as 5', '1 pairs are in the lists of both'):
        assert sentence in told


@pytest.mark.parametrize('classes, sentence', [
    (','.join(f'c{i}' for i in range(300)), 'at most 255 are possible'), ('car', 'needs two to tell apart'),
    ('clases.txt', 'no such file'), ('void,car', 'needs two to tell apart')])
def test_classes_that_cannot_be_are_refused(classes, sentence, tmp_path):
    assert sentence in refused(tmp_path, draw('two_folders', tmp_path / 'data'), classes=classes)


def test_labels_that_cannot_be_used_are_refused(tmp_path):
    root = draw('mixed_suffixes', tmp_path / 'data')
    for path in (root / 'labels').iterdir():
        Image.new('L', own_data.SIZE, 255).save(path)
    assert 'hold 255 only' in refused(tmp_path, root)
    for path in (root / 'labels').iterdir():
        path.rename(path.with_suffix('.npy'))
    assert 'There are also 8 in .npy, which are not read' in refused(tmp_path, root)
    root = draw('json_colors', tmp_path / 'colors')
    (root / 'label_map.json').write_text('[[1, 2]]')
    assert 'is no table of classes' in refused(tmp_path, root, classes=None)


def test_of_several_folders_of_images_the_others_are_named(tmp_path):
    """Site 1 has fewer labels than site 2, and of more of its images: names alone would take those of site 2."""
    for site, count in (('s1', 4), ('s2', 4)):
        several(tmp_path / 'data', f'{site}/images/{{}}.jpg', f'{site}/masks/{{}}.png', count=count)
    (tmp_path / 'data/s1/masks/0.png').unlink()
    (tmp_path / 'data/s2/images/3.jpg').unlink()
    _, told, found = remade(tmp_path / 'data', tmp_path, classes='sky,road,car')
    split = found.layout.splits['train']
    assert split.img_path[:2] == split.seg_map_path[:2] and 'left out: one folder of images can be used' in told


def test_a_config_that_is_there_is_kept(tmp_path):
    made('two_folders', tmp_path)
    text = (tmp_path / 'my.py').read_text()
    with pytest.raises(InputError, match='is there already'):
        make_config(Options(str(tmp_path / 'my data'), str(tmp_path / 'my.py'), '', ''))
    assert (tmp_path / 'my.py').read_text() == text
