"""Tiles keep values and place of large images and their labels, and are not mixed with other files."""
import re
import runpy
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext.apis.make_config import Options, make_config
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import check_dataset, tiling
from mmseg_inceptionnext.datasets.rasters import LoadRaster
from mmseg_inceptionnext.datasets.tiling import tile_dataset
from mmseg_inceptionnext.errors import InputError

from raster_data import PLACE, picture, rasterio, read, save_raster
from utils import ROOT


def test_tiles_keep_values_and_place(tmp_path):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    image = picture(96, 160, 4).astype(np.uint16) * 9
    save_raster(tmp_path / 'images/a.tif', image)
    save_raster(tmp_path / 'labels/a.tif', picture(96, 160, 1).reshape(96, 160, 1) // 100)
    assert tile_dataset(str(tmp_path / 'images'), str(tmp_path / 'labels'), str(tmp_path / 'out'), 64, 0) == 6
    with rasterio.open(tmp_path / 'out/images/a_32_96.tif') as file:
        assert file.transform * (0, 0) == PLACE['transform'] * (96, 32) and file.crs == PLACE['crs']
    loaded = LoadRaster(bands=[4, 1]).transform(dict(img_path=str(tmp_path / 'out/images/a_32_96.tif')))['img']
    assert loaded.dtype == np.float32 and (loaded == image[32:, 96:, [3, 0]]).all()
    label = cv2.imread(str(tmp_path / 'out/labels/a_32_96.png'), cv2.IMREAD_UNCHANGED)
    assert (label == read(tmp_path / 'labels/a.tif')[32:, 96:]).all()
    (tmp_path / 'labels/a.tif').unlink()
    with pytest.raises(InputError, match='1 images have no label'):
        tile_dataset(str(tmp_path / 'images'), str(tmp_path / 'labels'), str(tmp_path / 'out'))


def test_tiles_become_a_config(tmp_path):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    save_raster(tmp_path / 'images/a.tif', picture(128, 128))
    save_raster(tmp_path / 'labels/a.tif', np.arange(128 * 128, dtype=np.uint8).reshape(128, 128, 1) % 3)
    tile_dataset(str(tmp_path / 'images'), str(tmp_path / 'labels'), str(tmp_path / 'tiles'), 64, 32)
    out = str(tmp_path / 'my.py')
    make_config(Options(str(tmp_path / 'tiles'), out, str(ROOT / 'configs'), 'python ...', 'a,b,c', pretrained='none'))
    cfg = load_config(out)
    reports = check_dataset(cfg)
    assert [report.samples for report in reports] == [7, 2] and not any(report.problems for report in reports)
    assert sum(report.counts for report in reports)[:4].tolist() == [12288, 12288, 12288, 0]


def save_pair(folder, image, label, image_name='a.tif', **place):
    for name in ('images', 'labels'):
        (folder / name).mkdir(exist_ok=True)
    save_raster(folder / 'images' / image_name, image)
    save_raster(folder / 'labels/a.tif', label, **place)
    return str(folder / 'images'), str(folder / 'labels')


def test_tiles_of_a_colour_table_are_coloured_and_their_labels_stay_numbers(tmp_path):
    folders = save_pair(tmp_path, picture(64, 64), picture(64, 64, 1).reshape(64, 64, 1))
    image = Image.fromarray(picture(64, 64)).quantize(16)
    for folder in ('images', 'labels'):
        image.save(tmp_path / folder / 'a.tif')
    assert tile_dataset(*folders, str(tmp_path / 'out'), 64) == 1
    assert (cv2.imread(str(tmp_path / 'out/images/a_0_0.png'), -1)[..., ::-1] == np.array(image.convert('RGB'))).all()
    assert (cv2.imread(str(tmp_path / 'out/labels/a_0_0.png'), -1) == np.array(image)).all()


def test_tiles_are_not_mixed(tmp_path):
    images, labels = save_pair(tmp_path, picture(40, 48), picture(40, 48, 1).reshape(40, 48, 1))
    with pytest.raises(InputError, match='images: holds files already'):
        tile_dataset(images, labels, str(tmp_path))
    save_raster(tmp_path / 'images/a.tiff', picture(40, 48))
    (tmp_path / 'images/b.vrt').touch()
    with pytest.raises(InputError, match='a.tif and a.tiff have one name'):
        tile_dataset(images, labels, str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('dtype,words', [(np.uint8, 'make_config.py'), (np.uint16, 'docs/large_images.md')])
def test_the_tool_says_what_comes_after_the_tiles(tmp_path, monkeypatch, capsys, dtype, words):
    folders = save_pair(tmp_path, picture(40, 48).astype(dtype), picture(40, 48, 1).reshape(40, 48, 1))
    monkeypatch.setattr(sys, 'argv', ['tile_dataset.py', *folders, '--out', str(tmp_path / 'out')])
    runpy.run_path(str(ROOT / 'tools/tile_dataset.py'))['main']()
    assert re.fullmatch(f'1 tiles in .*; .*{words}.*', capsys.readouterr().out.strip())


@pytest.mark.parametrize('place,apart', [
    ({}, False), (dict(crs=None), False), (dict(crs='EPSG:32634'), True),
    (dict(transform=rasterio.Affine(0.5, 0, 390000.1, 0, -0.5, 5820000)), False),
    (dict(transform=rasterio.Affine(0.5, 0, 390000, 0, -0.5, 5820002)), True)])
def test_a_label_of_another_place_is_warned_of(tmp_path, monkeypatch, place, apart):
    told = []
    monkeypatch.setattr(tiling, 'print_log', lambda text, **_: told.append(text))
    folders = save_pair(tmp_path, picture(40, 48), picture(40, 48, 1).reshape(40, 48, 1), **place)
    tile_dataset(*folders, str(tmp_path / 'out'))
    assert ['another place' in text for text in told] == [True] * apart
