"""Images from memory are what the loading step of the config makes of their files, whatever its settings."""
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import ResultWriter, infer
from mmseg_inceptionnext.inference.loading import Loading
from mmseg_inceptionnext.inference.page import segment_file
from mmseg_inceptionnext.inference.video import Video, VideoWriter

from broken_files import PICTURE
from utils import ROOT, TOY, save_checkpoint

WIDE = PICTURE[..., 0].astype(np.uint16) * 199
ARRAYS = dict(L=PICTURE[..., 1], RGB=PICTURE)
OF_ANY_TYPE = dict(ARRAYS, RGBA=np.dstack([PICTURE, PICTURE[::-1, :, 0]]), wide=WIDE)


def pil_images():
    images = {name: Image.fromarray(array) for name, array in OF_ANY_TYPE.items()}
    palette = images['RGB'].convert('P', palette=Image.Palette.ADAPTIVE)
    return dict(images, P=palette, LA=images['RGBA'].convert('LA'), bits=images['L'].convert('1'))


@pytest.mark.parametrize('settings', [
    dict(), dict(color_type='grayscale'), dict(color_type='unchanged'), dict(color_type='color_ignore_orientation'),
    dict(color_type='grayscale_ignore_orientation'), dict(color_type=cv2.IMREAD_GRAYSCALE), dict(to_float32=True),
    dict(imdecode_backend=None), dict(imdecode_backend='pillow'), dict(imdecode_backend='pillow', to_float32=True),
    dict(imdecode_backend='pillow', color_type='grayscale'), dict(imdecode_backend='pillow', color_type='unchanged'),
], ids=str)
def test_memory_is_loaded_as_its_file_is(tmp_path, settings):
    step = LoadImageFromFile(**settings)
    loading, path, tiff = Loading(step), str(tmp_path / 'a.png'), str(tmp_path / 'a.tif')
    arrays = OF_ANY_TYPE if settings.get('color_type') == 'unchanged' else ARRAYS
    for name, image in pil_images().items():
        sources = [(image, path), (path, path), *([(arrays[name], path)] if name in arrays else [])]
        for file in (path, tiff):
            image.save(file)
            sources.append((Image.open(file), file))
        for source, file in sources:
            assert_same(loading.keep(source)(), step(dict(img_path=file)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    Image.fromarray(PICTURE).save(path, exif=exif)
    assert_same(loading.keep(Image.open(path))(), step(dict(img_path=path)))


@pytest.mark.parametrize('content, end', [
    (b'II*\0\x08', '; tools/infer.py reads TIFFs of floating point, too, with --window and --scale-range'),
    (b'404: not found', "begins with b'404: not'")])
def test_a_tiff_that_is_not_decoded_is_told_where_it_may_be_read(tmp_path, content, end):
    path = tmp_path / 'a.tif'
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Loading(LoadImageFromFile()).keep(path)()
    assert str(error.value).endswith(end)


def assert_same(loaded, expected):
    assert set(loaded) == set(expected)
    for key in ('img_shape', 'ori_shape'):
        assert loaded[key] == expected[key]
    assert loaded['img'].dtype == expected['img'].dtype and loaded['img'].flags.writeable
    np.testing.assert_array_equal(loaded['img'], expected['img'])


def test_tifffile_gives_the_bands_as_they_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(mmcv.image.io, 'tifffile', SimpleNamespace(imread=lambda file: np.array(Image.open(file))))
    step = LoadImageFromFile(imdecode_backend='tifffile')
    loading, path = Loading(step), str(tmp_path / 'a.tif')
    for array in (*OF_ANY_TYPE.values(), (PICTURE[..., 0] / 7).astype(np.float32)):
        Image.fromarray(array).save(path)
        for source in (array, Image.open(path)):
            assert_same(loading.keep(source)(), step(dict(img_path=path)))
    bands = np.arange(140, dtype='>i2').reshape(4, 5, 7)
    loaded = loading.keep(bands)()['img']
    np.testing.assert_array_equal(loaded, bands)
    assert loaded.dtype == np.int16
    np.testing.assert_array_equal(loading.show(PICTURE), PICTURE)


def test_turbojpeg_takes_no_notice_of_exif(tmp_path):
    """What it decodes, JPEG, is for files alone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / 'a.png', exif=exif)
    for color_type, expected in (('color', PICTURE[..., ::-1]), ('grayscale', None)):
        loading = Loading(LoadImageFromFile(imdecode_backend='turbojpeg', color_type=color_type))
        loaded = [loading.keep(source)()['img'] for source in (PICTURE, Image.open(tmp_path / 'a.png'))]
        np.testing.assert_array_equal(*loaded)
        assert loaded[0].shape[:2] == PICTURE.shape[:2] and (expected is None or (loaded[0] == expected).all())


def test_floats_are_taken_where_their_files_are(tmp_path):
    values = (PICTURE[..., 0] / 255).astype(np.float32)
    Image.fromarray(values).save(tmp_path / 'a.tif')
    loading = Loading(LoadImageFromFile(color_type='unchanged'))
    for source in (tmp_path / 'a.tif', Image.open(tmp_path / 'a.tif'), values, values[..., None]):
        np.testing.assert_array_equal(loading.keep(source)()['img'], values)
    with pytest.raises(InputError, match='mode F'):
        Loading(LoadImageFromFile(color_type='grayscale')).keep(Image.fromarray(values))
    with pytest.raises(InputError, match='float32: allowed are height x width x 3, RGB, and height x width, both'):
        Loading(LoadImageFromFile(color_type='grayscale')).keep(values)()
    with pytest.raises(InputError, match=r'shape \(3,\) and uint8: allowed are height x width and .* of numbers'):
        loading.keep(np.zeros(3, np.uint8))()


@pytest.mark.parametrize('image,expected', [
    (np.full((2, 2), 9, np.uint8), 9), (np.full((2, 2, 1), 9, np.uint8), 9), (np.full((2, 2, 2), 9, np.uint8), 9),
    (np.full((2, 2, 4), 9., np.float32), 9),  # to_float32
    (np.float32([[0, 0.5], [1, np.nan]]), [[0, 127], [255, 0]]),
    (np.uint16([[100, 300], [200, 500]]), [[0, 127], [63, 255]]), (np.full((2, 2), 0.5, np.float32), 0)])
def test_what_is_shown_is_rgb_of_8_bits(image, expected):
    shown = Loading(LoadImageFromFile()).show(image)
    assert shown.shape == (2, 2, 3) and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.broadcast_to(np.array(expected)[..., None], (2, 2, 3)))


def test_a_file_is_read_once(segmenter, toy_root, monkeypatch):
    read, get = [], fileio.get
    monkeypatch.setattr(fileio, 'get', lambda path, **settings: read.append(path) or get(path, **settings))
    paths = [str(path) for path in sorted((toy_root / 'images/validation').iterdir())]
    segmenter(paths)
    assert sorted(read) == paths


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """A loading step of one's own."""

    def transform(self, results):
        if not results['img_path'].endswith('.npy'):
            raise KeyError('no array')
        image = np.load(results['img_path'])
        return dict(results, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


def test_a_loading_step_of_ones_own(tmp_path):
    bands = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    np.save(tmp_path / 'a.npy', bands)
    loading = Loading(LoadArray())
    for source in (tmp_path / 'a.npy', bands):
        np.testing.assert_array_equal(loading.keep(source)()['img'], bands)
        assert loading.show(loading.keep(source)()['img']).shape == (3, 4, 3)
    np.testing.assert_array_equal(loading.keep(PICTURE)()['img'], PICTURE[..., ::-1])
    (tmp_path / 'a.txt').write_text('text')
    with pytest.raises(InputError, match="a.txt: cannot be read as an image: KeyError: 'no array'"):
        loading.keep(tmp_path / 'a.txt')()


def make_segmenter(folder, bands, **settings):
    """A model of random weights for images of some bands."""
    cfg = Config.fromfile(ROOT / TOY)
    cfg.model.backbone.update(in_channels=bands)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.data_preprocessor.update(mean=[120.], std=[60.], bgr_to_rgb=False)
    cfg.test_dataloader.dataset.pipeline[0].update(settings)
    cfg.dump(folder / 'bands.py')
    torch.manual_seed(0)
    return Segmenter(save_checkpoint(folder / 'bands.py', folder / 'bands.pth'))


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    return make_segmenter(tmp_path_factory.mktemp('grey'), 1, color_type='grayscale')


def test_a_grey_model_takes_all_that_can_be_grey(grey, tmp_path):
    path = tmp_path / 'a.png'
    for array in (PICTURE[..., 1], PICTURE):
        Image.fromarray(array).save(path)
        expected = grey(path)
        assert len(np.unique(expected.mask)) > 3 and (expected.image == expected.image[..., :1]).all()
        for source in (array, Image.fromarray(array), Image.open(path)):
            result = grey(source)
            np.testing.assert_array_equal(result.mask, expected.mask)
            np.testing.assert_array_equal(result.image, expected.image)
    assert 'class="viewer"><div class="parts"' in segment_file(grey, str(path))


def test_a_grey_model_takes_videos(grey, tmp_path):
    film = str(tmp_path / 'film.mp4')
    writer = VideoWriter(film, film, 25.)
    for image in (PICTURE, PICTURE[::-1]):
        writer.add(image)
    writer.close('')
    summary = infer(grey, [film], str(tmp_path / 'out'), ResultWriter(['index', 'overlay']))
    assert summary.images == 2 and not summary.failures
    Image.fromarray(next(iter(Video(film)))).save(tmp_path / 'frame.png')
    mask = np.array(Image.open(tmp_path / 'out/film/000000.png'))
    np.testing.assert_array_equal(mask, grey(tmp_path / 'frame.png').mask)


def test_a_model_of_four_bands_takes_them_and_says_so_of_others(tmp_path):
    segmenter = make_segmenter(tmp_path, 4, color_type='unchanged')
    array = OF_ANY_TYPE['RGBA']
    for name in ('a.png', 'a.tif'):
        Image.fromarray(array).save(tmp_path / name)
        expected = segmenter(tmp_path / name)
        for source in (Image.open(tmp_path / name), *([array] if name == 'a.png' else [])):
            np.testing.assert_array_equal(segmenter(source).mask, expected.mask)
    np.testing.assert_array_equal(segmenter(array).image, PICTURE)
    Image.fromarray(PICTURE).save(tmp_path / 'rgb.png')
    summary = infer(segmenter, [str(tmp_path / 'rgb.png'), str(tmp_path / 'a.png')], str(tmp_path / 'out'))
    assert summary.images == 1
    assert summary.failures[0].startswith(f'{tmp_path}/rgb.png: the image has 3 channels after the test pipeline, and '
                                          'the model takes 4: give')
    for source in (PICTURE, PICTURE[..., 0]):
        with pytest.raises(InputError, match='the model takes 4'):
            segmenter(source)
