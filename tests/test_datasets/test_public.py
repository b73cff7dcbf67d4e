"""The public data sets, each drawn as it is published, through its config."""
import io
import re
import sys
import zipfile
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image
from public_data import DRAWN, LAYOUTS, draw

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import check_dataset
from mmseg_inceptionnext.datasets.public import PublicDataset
from mmseg_inceptionnext.engine.check import check_datasets, check_settings
from mmseg_inceptionnext.errors import MissingDatasetError
from mmseg_inceptionnext.evaluation.predictions import label_values
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.parts import find_datasets, first_dataset

from utils import ROOT, narrow, run, run_tool

PUBLISHED = Path(mmseg.__file__).parent / '.mim'
OF_MMSEGMENTATION = {  # the file of _base_/datasets there
    'voc12aug': 'pascal_voc12_aug', 'pascal-context-59': 'pascal_context_59', 'mapillary': 'mapillary_v1',
    'chase-db1': 'chase_db1'}


def leaf(name, **options):
    size = 'a' if name == 'chase-db1' else 't'
    cfg = load_config(str(ROOT / f'configs/{name}/fpn_inceptionnext_{size}_{name}.py'), options)
    for split in ('train', 'val', 'test'):
        for _, settings in find_datasets(cfg, split):
            settings.serialize_data = False  # MMEngine collects garbage for it, which takes a second in a long process
    return cfg


def built(settings, *kinds):
    """A data set whose pipeline is of these steps only; with none of them it is as it is."""
    steps = [step for step in settings.pipeline if step.type in kinds] if kinds else settings.pipeline
    return DATASETS.build(dict(settings, pipeline=steps))


@pytest.mark.parametrize('name', LAYOUTS)
def test_labels_are_read_as_they_were_drawn(name, tmp_path):
    cfg = leaf(name, data_root=str(draw(name, tmp_path)))
    check_settings(cfg, 'train', 'val')
    check_datasets(cfg, 'train', 'val', 'test')
    assert cfg.model.decode_head.num_classes == LAYOUTS[name].classes
    for report in check_dataset(cfg, ('train', 'val', 'test')):
        assert not report.problems and report.samples == 2 and len(report.classes) == LAYOUTS[name].classes
    found = set()
    for split in ('train', 'val'):
        for _, settings in find_datasets(cfg, split):
            dataset = built(settings, 'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels')
            values = label_values(LAYOUTS[name].classes, dataset.reduce_zero_label, dataset.label_map)
            for sample in dataset:
                drawn = DRAWN[sample['seg_map_path']]
                np.testing.assert_array_equal(sample['gt_seg_map'], drawn)
                counted = drawn != 255
                file = np.asarray(Image.open(sample['seg_map_path']))
                np.testing.assert_array_equal(values[drawn[counted]], file[counted])  # as test.py --out writes them
                found.add(sample['seg_map_path'])
    assert found == {path for path in DRAWN if path.startswith(f'{tmp_path}/')}
    sample = built(first_dataset(cfg, 'train'))[0]
    assert sample['inputs'].shape[0] == 3 and sample['data_samples'].gt_sem_seg.shape == sample['inputs'].shape[1:]


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_missing_one_is_one_clear_message(name, tmp_path):
    cfg = leaf(name, data_root=str(tmp_path / 'nowhere'))
    settings = first_dataset(cfg, 'train')
    with pytest.raises(MissingDatasetError) as error:
        DATASETS.build(settings)
    kind = DATASETS.get(settings.type)
    assert issubclass(kind, PublicDataset)
    text, page = str(error.value), (ROOT / 'docs/datasets.md').read_text()
    layout, published = kind.SOURCE.split('\n')
    assert f'{tmp_path}/nowhere/' in text and 'is not a folder' in text and layout in text and published in text
    home = published.split()[2].rstrip(';,:')
    assert home.startswith('http') and home in page and '--data-root DIR' in text
    converter = published.partition('tools/dataset_converters/')[2].partition(' ')[0]
    assert bool(converter) == (name != 'mapillary') and converter in page
    assert not PUBLISHED.is_dir() or (PUBLISHED / 'tools/dataset_converters' / converter).exists()


def test_labels_that_no_converter_has_made_are_missed_at_once(tmp_path):
    for path in draw('cityscapes', tmp_path).rglob('*_labelTrainIds.png'):
        path.unlink()
    settings = first_dataset(leaf('cityscapes', data_root=str(tmp_path)), 'val')
    with pytest.raises(MissingDatasetError, match='none of the labels is there, such as .*gtFine/val/ulm(.|\n)*tools/'):
        DATASETS.build(settings)
    del settings.data_prefix['seg_map_path']
    assert len(DATASETS.build(settings)) == 2  # images may be predicted without


@pytest.mark.parametrize('name', LAYOUTS)
def test_folders_and_sizes_are_those_of_mmsegmentation(name):
    path = PUBLISHED / f'configs/_base_/datasets/{OF_MMSEGMENTATION.get(name, name)}.py'
    if not path.is_file():
        pytest.skip('this MMSegmentation comes without its configs')
    ours, theirs = leaf(name), Config.fromfile(path)
    for split in ('train', 'val'):
        pairs = list(zip(find_datasets(ours, split), find_datasets(theirs, split)))
        assert len(pairs) == 1 + (name == 'voc12aug' and split == 'train')
        for (_, own), (_, stock) in pairs:
            for key in ('data_prefix', 'ann_file'):
                assert own.get(key) == stock.get(key)
            assert own.data_root == stock.data_root.rstrip('/')
            for kind, key in (('RandomResize', 'scale'), ('RandomCrop', 'crop_size'), ('Resize', 'scale')):
                assert [step[key] for step in own.pipeline if step.type == kind] == [
                    step[key] for step in stock.pipeline if step.type == kind]
            kind, other = DATASETS.get(own.type), DATASETS.get(stock.type)
            count = LAYOUTS[name].classes
            assert tuple(kind.METAINFO['classes']) == tuple(other.METAINFO['classes'][:count])
            assert kind.METAINFO['palette'] == other.METAINFO['palette'][:count]


def small(name, tmp_path):
    """The config of a data set with a model of few channels, for small crops of the drawn images."""
    cfg = leaf(name, data_root=str(draw(name, tmp_path / 'data')))
    narrow(cfg.model)
    cfg.model.backbone.arch['depths'] = [1, 1, 1, 1]
    cfg.model.backbone.pop('init_cfg')
    cfg.model.neck.out_channels = cfg.model.decode_head.channels = 16
    cfg.model.decode_head.in_channels = [16] * 4
    cfg.model.data_preprocessor.size = (64, 64)
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(64, 64), stride=(32, 32))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        for _, dataset in find_datasets(cfg, split):
            for step in dataset.pipeline:
                step.update({key: size for key, size in (('scale', (96, 64)), ('crop_size', (64, 64))) if key in step})
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name in ('voc12aug', 'chase-db1') else pytest.mark.slow) for name in LAYOUTS])
def test_a_step_an_evaluation_and_a_prediction(name, tmp_path, monkeypatch):
    # MMEngine lays configs out prettily whenever it saves one, which takes more time than all the rest.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    cfg = small(name, tmp_path)
    best = 'mDice' if name == 'chase-db1' else 'mIoU'
    metrics = train(cfg)
    assert 0 <= metrics[best] <= 100 and list(Path(cfg.work_dir).glob(f'best_{best}_iter_1.pth'))
    checkpoint = f'{cfg.work_dir}/iter_1.pth'
    test_cfg = small(name, tmp_path)
    again = evaluate(test_cfg, checkpoint, out=str(tmp_path / 'out'))
    assert again['mIoU'] == pytest.approx(metrics['mIoU'], nan_ok=True)
    dataset = built(first_dataset(cfg, 'val'), 'none')
    allowed = label_values(LAYOUTS[name].classes, dataset.reduce_zero_label, dataset.label_map)
    paths = sorted((tmp_path / 'out').rglob('*.png'))
    assert len(paths) == 2 and all(np.isin(np.asarray(Image.open(path)), allowed).all() for path in paths)
    segmenter = Segmenter(checkpoint)  # by the config inside it
    assert len(segmenter.classes) == LAYOUTS[name].classes
    mask = segmenter(dataset.get_data_info(0)['img_path']).mask
    assert mask.shape == (64, 96) and mask.max() < LAYOUTS[name].classes


@pytest.mark.slow
def test_every_tool_takes_joined_data_sets(tmp_path):
    config, data = 'configs/voc12aug/fpn_inceptionnext_t_voc12aug.py', draw('voc12aug', tmp_path / 'data')
    options = ['model.backbone.init_cfg=None', 'model.backbone.arch=atto', 'model.neck.in_channels=[40,80,160,320]',
               'train_pipeline.3.scale=(96,64)', 'train_pipeline.4.crop_size=(64,64)', 'test_pipeline.1.scale=(96,64)',
               'model.data_preprocessor.size=(64,64)', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
               'default_hooks.checkpoint.interval=1', *(f'{split}_dataloader.num_workers=0' for split in (
                   'train', 'val', 'test'))]
    work = tmp_path / 'work'
    run_tool('tools/check_dataset.py', config, '--data-root', data)
    run_tool('tools/visualize_dataset.py', config, '--data-root', data, '--num', 1, '--out-dir', tmp_path / 'samples')
    run_tool('tools/train.py', config, '--data-root', data, '--work-dir', work, '--cfg-options', *options)
    run_tool('tools/test.py', config, work / 'iter_1.pth', '--data-root', data, '--work-dir', work, '--out',
             tmp_path / 'out', '--cfg-options', *options)
    run_tool('tools/infer.py', work / 'iter_1.pth', data / 'JPEGImages', '--out-dir', tmp_path / 'overlays')
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 2 and list((tmp_path / 'samples').iterdir())


@pytest.mark.slow
def test_the_converter_of_isaid_with_the_change_of_the_page(tmp_path):
    """What it saves is read as drawn; without the change every class above 0 would be 1."""
    old, new = re.search(r'sed "s/(.*)/(.*)/" \$CONVERT/isaid.py', (ROOT / 'docs/datasets.md').read_text()).groups()
    converter = PUBLISHED / 'tools/dataset_converters/isaid.py'
    if not converter.is_file():
        pytest.skip('this MMSegmentation comes without its converters')
    (tmp_path / 'isaid.py').write_text(converter.read_text().replace(old, new))
    colors = np.array(DATASETS.get('CheckediSAIDDataset').METAINFO['palette'], np.uint8)
    classes = np.arange(16, dtype=np.uint8).repeat(8).reshape(1, 128).repeat(64, 0)
    for part in ('train', 'val', 'test'):
        for folder, name, pixels in (('images', 'P0001.png', colors[classes] + np.uint8(1)),
                                     ('Semantic_masks', 'P0001_instance_color_RGB.png', colors[classes])):
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, 'PNG')
            (tmp_path / f'raw/{part}/{folder}').mkdir(parents=True)
            with zipfile.ZipFile(tmp_path / f'raw/{part}/{folder}/part1.zip', 'w') as file:
                file.writestr(f'images/{name}', image.getvalue())
    run(sys.executable, tmp_path / 'isaid.py', tmp_path / 'raw', '-o', tmp_path / 'data', '--patch_width', 64,
        '--patch_height', 64, '--overlap_area', 0)
    cfg = leaf('isaid', data_root=str(tmp_path / 'data'))
    assert not any(report.problems for report in check_dataset(cfg))
    left, right = built(cfg.train_dataloader.dataset, 'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels')
    np.testing.assert_array_equal(np.concatenate([left['gt_seg_map'], right['gt_seg_map']], 1), classes)


def test_some_classes_of_mapillary_leave_the_unlabelled_out():
    kind = DATASETS.get('CheckedMapillaryDataset')
    assert kind.get_label_map() == {65: 255}
    chosen = kind(lazy_init=True, metainfo=dict(classes=('Road', 'Bird')))
    assert (chosen.label_map[0], chosen.label_map[13], chosen.label_map[64], chosen.label_map[65]) == (1, 0, 255, 255)
    assert torch.tensor(chosen.metainfo['palette']).shape == (2, 3)
