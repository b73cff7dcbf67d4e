"""Large images are segmented by windows as they are whole, keep their place on earth, and go on where they stopped."""
import errno
import os
import re
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.datasets.tiling import tile_dataset
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import Windows, infer, rasters
from mmseg_inceptionnext.inference.outputs import is_result
from mmseg_inceptionnext.inference.raster_files import alone, is_unfinished

from raster_data import PLACE, WINDOW, picture, rasterio, read, save_model, save_raster
from utils import ROOT, SHORT, run_tool

TILED = dict(tiled=True, blockxsize=64, blockysize=32)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('model') / 'a.pth')


@pytest.fixture(scope='module')
def stock(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('model') / 'a.pth', kind='EncoderDecoder')


@pytest.mark.parametrize('kind,size', [
    ('model', (200, 160)), ('model', (160, 200)),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('model', (48, 200)), ('stock', (200, 160)), ('stock', (160, 200))))])
def test_the_classes_are_those_of_sliding_windows_in_memory(kind, size, request, tmp_path):
    segmenter, image = request.getfixturevalue(kind), picture(*size)
    source = save_raster(tmp_path / 'a.tif', image, tiled=True, blockxsize=64, blockysize=64, compress='lzw')
    counts = segmenter.segment_file(source, tmp_path / 'out/a.tif')
    with rasterio.open(tmp_path / 'out/a.tif') as file:
        classes, colors = file.read(1), file.colormap(1)
        assert (file.crs, file.transform, file.nodata) == (PLACE['crs'], PLACE['transform'], None)
        assert file.profile['tiled'] and file.profile['compress'] == 'deflate' and file.count == 1
    assert (classes == segmenter(image).mask).all() and len(np.unique(classes)) > 1
    assert (counts == np.bincount(classes.ravel(), minlength=5)).all() and colors[2] == (80, 9, 9, 255)
    assert is_result(str(tmp_path / 'out/a.tif')) and is_result(str(tmp_path / 'out/a_overlay.jpg'))
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.tif', 'a_overlay.jpg']


@pytest.mark.parametrize('name,profile', [
    ('a.tif', dict(blockysize=16, compress='jpeg', photometric='ycbcr')), ('a.tif', dict(TILED, BIGTIFF='YES')),
    ('a.jp2', dict(driver='JP2OpenJPEG')), *(pytest.param('a.tif', profile, marks=pytest.mark.slow) for profile in (
        dict(blockysize=7), dict(blockysize=7, compress='lzw', interleave='band'), dict(TILED, compress='jpeg'),
        dict(TILED, compress='deflate', predictor=2), dict(TILED, BIGTIFF='YES', compress='lzw')))])
def test_the_ways_that_pixels_are_stored(model, tmp_path, name, profile):
    source = save_raster(tmp_path / name, picture(120, 104), **profile)
    with rasterio.open(source) as file:
        stored = file.read().transpose(1, 2, 0)
    assert ('BIGTIFF' in profile) == ((tmp_path / name).read_bytes()[:4] == b'II+\0')
    model.segment_file(source, tmp_path / 'b.tif')
    assert (read(tmp_path / 'b.tif') == model(np.ascontiguousarray(stored)).mask).all()


def test_floats_without_a_value_where_they_have_none(model, tmp_path):
    """The stretch is a power of two: no rounding."""
    image = picture(120, 104)
    floats = image * np.float32(4) - 100
    floats[30:50, 20:40, 1], image[30:50, 20:40, 1] = np.nan, 0
    floats[:8], image[:8] = -9999, 0
    source = save_raster(tmp_path / 'a.tif', floats, nodata=-9999)
    model.segment_file(source, tmp_path / 'b.tif', scale_range=(-100, 920))
    expected = model(image).mask
    expected[30:50, 20:40] = expected[:8] = 255
    assert (read(tmp_path / 'b.tif') == expected).all()
    model.segment_file(source, tmp_path / 'percentiles.tif')
    values = floats[expected < 255]
    model.segment_file(source, tmp_path / 'range.tif', scale_range=np.percentile(values, (2, 98)))
    assert (tmp_path / 'percentiles.tif').read_bytes() == (tmp_path / 'range.tif').read_bytes()


def test_what_has_no_data_stays_so_and_costs_no_prediction(model, tmp_path, monkeypatch):
    image = picture(200, 200)
    image[image == 0] = 1
    image[:, 100:] = 0
    source = save_raster(tmp_path / 'a.tif', image, nodata=0)
    windows = []
    forward = type(model.model)._logits
    monkeypatch.setattr(type(model.model), '_logits', lambda self, x: windows.append(len(x)) or forward(self, x))
    counts = model.segment_file(source, tmp_path / 'b.tif')
    assert sum(windows) == 6 and counts.sum() == 200 * 100
    with rasterio.open(tmp_path / 'b.tif') as file:
        classes = file.read(1)
        assert file.nodata == 255 and (classes[:, 100:] == 255).all()
    assert (classes[:, :72] == model(image).mask[:, :72]).all() and (classes[:, :100] < 5).all()


@pytest.fixture
def stopping(model, monkeypatch):
    """Lets the prediction of the ``at``-th batch of windows from now be interrupted; with 0 of none."""
    forward, counter = type(model.model)._logits, SimpleNamespace(at=0)

    def stops(self, x):
        counter.at -= 1
        if counter.at == 0:
            raise KeyboardInterrupt
        return forward(self, x)
    monkeypatch.setattr(type(model.model), '_logits', stops)
    return counter


@pytest.mark.parametrize('size,at', [
    ((320, 160), 4), *(pytest.param(size, at, marks=pytest.mark.slow) for size in ((320, 160), (160, 320))
                       for at in (1, 5, 8))])
def test_what_was_stopped_goes_on_at_its_row_of_windows(model, stopping, tmp_path, size, at):
    source = save_raster(tmp_path / 'a.tif', picture(*size))
    model.segment_file(source, tmp_path / 'whole.tif')
    stopping.at = at
    with pytest.raises(KeyboardInterrupt):
        model.segment_file(source, tmp_path / 'b.tif')
    assert not (tmp_path / 'b.tif').exists()
    model.segment_file(source, tmp_path / 'b.tif', skip_existing=True)
    assert (tmp_path / 'b.tif').read_bytes() == (tmp_path / 'whole.tif').read_bytes()
    assert not list(tmp_path.glob('.b.tif*'))


@pytest.mark.parametrize('kind,size,batch,buffer', [
    ('model', (240, 180), 1, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('model', (180, 480), 1, 0), ('model', (490, 500), 2, 0), ('model', (490, 480), 2, 400),
        ('stock', (180, 480), 1, 200), ('stock', (300, 500), 3, 200)))])
def test_strips_change_nothing_also_when_stopped(kind, size, batch, buffer, request, tmp_path, monkeypatch):
    segmenter, windows = request.getfixturevalue(kind), []
    source = save_raster(tmp_path / 'a.tif', picture(*size))
    monkeypatch.setattr(segmenter, 'batch_size', batch)
    extract_feat = type(segmenter.model).extract_feat

    def counts(self, x):
        windows.append(len(x))
        if len(windows) == stop:
            raise KeyboardInterrupt
        return extract_feat(self, x)
    monkeypatch.setattr(type(segmenter.model), 'extract_feat', counts)
    stop = 0
    segmenter.segment_file(source, tmp_path / 'whole.tif')
    without, windows = sum(windows), []
    monkeypatch.setattr(rasters, 'BUFFER', buffer * 4 * WINDOW * 5)
    segmenter.segment_file(source, tmp_path / 'strips.tif')
    assert (tmp_path / 'strips.tif').read_bytes() == (tmp_path / 'whole.tif').read_bytes()
    assert without < sum(windows) <= 2 * without
    stop, windows = len(windows) * 2 // 3, []
    with pytest.raises(KeyboardInterrupt):
        segmenter.segment_file(source, tmp_path / 'b.tif')
    stop, before, windows = 0, len(windows), []
    segmenter.segment_file(source, tmp_path / 'b.tif', skip_existing=True)
    assert (tmp_path / 'b.tif').read_bytes() == (tmp_path / 'whole.tif').read_bytes() and len(windows) < before


def test_another_model_does_not_go_on(model, tmp_path, monkeypatch):
    settings = dict(model=1)
    classes = rasters.ClassFile(str(tmp_path / 'a.tif'), (10, 10), 5, False, settings, resume=True)
    classes.put(slice(0, 4), slice(0, 10), np.ones((4, 10)))
    classes.save()
    assert rasters.ClassFile(str(tmp_path / 'a.tif'), (10, 10), 5, False, settings, resume=True).done == 4
    assert rasters.ClassFile(str(tmp_path / 'a.tif'), (10, 10), 5, False, dict(model=2), resume=True).done == 0


def test_what_was_begun_anew_does_not_go_on_where_an_older_run_was(model, stopping, tmp_path):
    source, target = save_raster(tmp_path / 'a.tif', picture(400, 120)), tmp_path / 'b.tif'
    model.segment_file(source, tmp_path / 'whole.tif')
    for stopping.at in (6, 1):  # in the third row, and in the first one of a new run
        with pytest.raises(KeyboardInterrupt):
            model.segment_file(source, target)
        assert is_unfinished(str(target))
    model.segment_file(source, target, skip_existing=True)
    assert target.read_bytes() == (tmp_path / 'whole.tif').read_bytes() and not is_unfinished(str(target))


@pytest.mark.parametrize('spoil', [
    lambda path: os.truncate(path / '.a.tif.classes.tmp', 50),
    lambda path: (path / '.a.tif.progress.tmp').write_text('{}'),
    lambda path: (path / '.a.tif.progress.tmp').write_text('{"done": 4'),
    lambda path: (path / '.a.tif.classes.tmp').unlink()])
def test_what_is_damaged_is_begun_anew(tmp_path, spoil):
    classes = rasters.ClassFile(str(tmp_path / 'a.tif'), (10, 10), 5, False, {}, resume=False)
    classes.put(slice(0, 4), slice(0, 10), np.ones((4, 10)))
    classes.save()
    spoil(tmp_path)
    assert rasters.ClassFile(str(tmp_path / 'a.tif'), (10, 10), 5, False, {}, resume=True).done == 0


def test_two_runs_do_not_write_one_result(model, tmp_path):
    source = save_raster(tmp_path / 'a.tif', picture(96, 96))
    with alone(str(tmp_path / 'b.tif')), pytest.raises(InputError, match='is being written by another run'):
        model.segment_file(source, tmp_path / 'b.tif')
    model.segment_file(source, tmp_path / 'b.tif')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.tif', 'b.tif', 'b_overlay.jpg']


def test_a_full_disk_leaves_the_result_before(model, tmp_path, monkeypatch):
    """Found when the file is closed, and where its bytes are reserved."""
    source, target = save_raster(tmp_path / 'a.tif', picture(96, 96)), tmp_path / 'b.tif'
    model.segment_file(source, target)
    before, open_file = target.read_bytes(), rasterio.open

    def cut(path, *args, **kwargs):
        if str(path).endswith('.b.tif.tmp') and not args:  # to be read back
            os.truncate(path, os.path.getsize(path) - 200)
        return open_file(path, *args, **kwargs)
    monkeypatch.setattr(rasterio, 'open', cut)
    with pytest.raises(OSError, match='cannot be read back'):
        model.segment_file(source, target)
    monkeypatch.undo()

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='No space left'):
        model.segment_file(source, target)
    assert target.read_bytes() == before


@pytest.mark.parametrize('target,words', [('a.tif', 'overwritten by its own result'), ('b.png', 'ends in .tif'),
                                          ('c.tif', 'is a folder')])
def test_targets_that_are_refused(model, tmp_path, target, words):
    source = save_raster(tmp_path / 'a.tif', picture(96, 96))
    (tmp_path / 'c.tif').mkdir()
    with pytest.raises(InputError, match=words):
        model.segment_file(source, tmp_path / target)


def test_bands_and_ranges(model, tmp_path):
    image = picture(96, 96, 4)
    wide = save_raster(tmp_path / 'a.tif', image.astype(np.uint16) * 10 + 7, interleave='band')
    model.segment_file(wide, tmp_path / 'b.tif', bands=np.array([4, 2, 1]), scale_range=(7, 2557))
    mask = model(np.ascontiguousarray(image[..., [3, 1, 0]])).mask
    assert (read(tmp_path / 'b.tif') == mask).mean() > 0.99  # all but rounding
    for options, words in ((dict(bands=(1, 5, 2)), 'has the bands 1 to 4'), (dict(bands=(1, 2)), 'the model takes 3'),
                           (dict(scale_range=(3, 3)), 'the smaller one first'),
                           (dict(scale_range=(3, )), 'allowed are two numbers'), (dict(overlap=99), 'less than the'),
                           (dict(bands=3), 'a list of numbers'), (dict(bands='3,2,1'), 'a list of numbers'),
                           (dict(window=8), 'from 32')):
        with pytest.raises(InputError, match=words):
            model.segment_file(wide, tmp_path / 'b.tif', **{'window': 96, **options})


def test_results_are_blank_where_the_bands_in_use_have_no_data(model, tmp_path):
    image = picture(96, 96, 4).astype(np.float32)
    image[:, :40, 3] = np.nan
    source = save_raster(tmp_path / 'a.tif', image)
    for bands, blank in (([1, 2, 3], 0), ([1, 2, 4], 40 / 96)):
        model.segment_file(source, tmp_path / 'b.tif', bands=bands, scale_range=(0, 255))
        assert (read(tmp_path / 'b.tif') == 255).mean() == pytest.approx(blank)


def test_infer_writes_them_beside_other_results(model, tmp_path):
    (tmp_path / 'in').mkdir()
    image = picture(96, 96)
    save_raster(tmp_path / 'in/a.tif', image)
    summary = infer(model, [str(tmp_path / 'in')], str(tmp_path / 'out'), windows=Windows(96, 24))
    assert summary.images == 1 and not summary.failures and (read(tmp_path / 'out/a.tif') == model(image).mask).all()
    again = infer(model, [str(tmp_path / 'in')], str(tmp_path / 'out'), windows=Windows(96, 24), skip_existing=True)
    assert again.skipped == 1 and not again.images


def test_without_rasterio_plain_images_are_read_by_opencv(model, tmp_path, monkeypatch):
    image = picture(96, 120)
    cv2.imwrite(str(tmp_path / 'a.bmp'), image[..., ::-1])
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    model.segment_file(str(tmp_path / 'a.bmp'), tmp_path / 'b.tif')
    assert (cv2.imread(str(tmp_path / 'b.tif'), cv2.IMREAD_UNCHANGED).shape[:2]) == (96, 120)
    monkeypatch.undo()
    assert (read(tmp_path / 'b.tif') == model(image).mask).all()
    (tmp_path / 'c.tif').write_text('text')
    with pytest.raises(InputError, match='cannot be read as an image'):
        model.segment_file(tmp_path / 'c.tif', tmp_path / 'b.tif')


@pytest.mark.slow
def test_opencv_says_nothing_of_the_tags_of_a_geotiff(tmp_path):
    source = save_raster(tmp_path / 'a.tif', picture(64, 64))
    code = f'import os; os.environ.pop("OPENCV_LOG_LEVEL", 0); import mmseg_inceptionnext, cv2; cv2.imread({source!r})'
    assert not run_tool('-c', code).stderr


@pytest.mark.parametrize('name', ['a.bmp', 'a.tif'])
def test_what_is_too_large_to_predict_whole_goes_by_windows(model, tmp_path, monkeypatch, name):
    monkeypatch.setattr(rasters, 'TOO_LARGE', 700 * 700)
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 1000)
    cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 256, (701, 701, 3)).astype(np.uint8))
    assert rasters.is_too_large(str(tmp_path / name))
    monkeypatch.setattr(rasters, 'TOO_LARGE', 702 * 702)
    assert not rasters.is_too_large(str(tmp_path / name))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['a.bmp', 'a.tif'])
def test_182_million_pixels(tmp_path, name):
    segmenter = save_model(tmp_path / 'a.pth')
    image = np.zeros((13500, 13500, 3), np.uint8)
    image[::50] = 90
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in' / name), image)
    windows = Windows(2048, 0)
    assert rasters.is_too_large(str(tmp_path / 'in' / name))
    summary = infer(segmenter, [str(tmp_path / 'in')], str(tmp_path / 'out'), windows=windows)
    assert summary.images == 1 and read(tmp_path / 'out/a.tif').shape == (13500, 13500)


@pytest.mark.slow
def test_bands_of_a_model_of_four(tmp_path):
    segmenter = save_model(tmp_path / 'four.pth', loader=dict(type='LoadRaster', scale_range=(0, 3000)), in_channels=4,
                           type='BandDataPreProcessor', bgr_to_rgb=False)
    source = save_raster(tmp_path / 'a.tif', picture(160, 120, 4).astype(np.uint16) * 11)
    segmenter.segment_file(source, tmp_path / 'b.tif')
    assert (read(tmp_path / 'b.tif') == segmenter(source).mask).all()


@pytest.mark.slow
def test_the_page_trains_four_bands_of_16_bits(tmp_path):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    source = save_raster(tmp_path / 'images/a.tif', picture(256, 320, 4).astype(np.uint16) * 11)
    save_raster(tmp_path / 'labels/a.tif', picture(256, 320, 1).reshape(256, 320, 1) // 100)
    tile_dataset(str(tmp_path / 'images'), str(tmp_path / 'labels'), str(tmp_path / 'tiles'), 160)
    page = (ROOT / 'docs/large_images.md').read_text()
    config = re.search('```python\n(_base_ = .*?)```', page, re.DOTALL).group(1).replace("'./", f"'{ROOT}/configs/")
    (tmp_path / 'my.py').write_text(config.replace("'tiles'", f"'{tmp_path}/tiles'"))
    run_tool('tools/train.py', tmp_path / 'my.py', '--work-dir', tmp_path / 'work', '--cfg-options', *SHORT,
             'train_cfg.max_iters=20', 'train_cfg.val_interval=20', 'train_dataloader.batch_size=2')
    segmenter = Segmenter(str(tmp_path / 'work/iter_20.pth'))
    segmenter.segment_file(source, tmp_path / 'b.tif')
    assert (read(tmp_path / 'b.tif') == segmenter(source).mask).all()
