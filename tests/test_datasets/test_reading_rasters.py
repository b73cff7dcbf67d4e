"""What is read of a raster: its values, colours and turn as OpenCV has them, and where it has data."""
import sys
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext.datasets.rasters import open_raster
from mmseg_inceptionnext.errors import InputError

from raster_data import picture, rasterio, save_raster


def test_a_file_that_names_others_is_none_that_is_read(tmp_path):
    secret = tmp_path / 'secret.tif'
    with rasterio.open(secret, 'w', driver='GTiff', height=8, width=8, count=1, dtype='uint8') as file:
        file.write(np.full((1, 8, 8), 7, np.uint8))
    for name in ('other.vrt', 'other.png'):
        (tmp_path / name).write_text(
            '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f'<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>')
        with pytest.raises(InputError, match='cannot be read'):
            open_raster(str(tmp_path / name))
    assert open_raster(str(secret)).size == (8, 8)


@pytest.mark.parametrize('name,mode', [
    ('a.png', 'P'), ('a.tif', 'P'), ('a.bmp', 'P'), ('a.gif', 'P'), ('a.png', '1'), ('a.tif', '1'), ('a.bmp', '1'),
    ('a.png', 'RGB'), ('a.bmp', 'L')])
def test_an_image_has_the_colours_that_opencv_gives(tmp_path, name, mode):
    array, path = picture(40, 48), str(tmp_path / name)
    image = Image.fromarray(array).quantize(16) if mode == 'P' else Image.fromarray(array).convert(mode)
    image.save(path)
    with open_raster(path) as raster, open_raster(path, as_stored=True) as stored:
        whole = cv2.imread(path) if mode != 'P' or name != 'a.gif' else np.array(image.convert('RGB'))[..., ::-1]
        bands = raster.bands if raster.count == 3 else [1, 1, 1]
        assert (raster.read(slice(3, 40), slice(5, 48), bands) == whole[3:, 5:, ::-1]).all()
        assert (raster.overview(bands)[0] == whole[..., ::-1]).all() and raster.count == (1 if mode in '1L' else 3)
        if mode == 'P':
            assert stored.count == 1 and stored.read(slice(0, 40), slice(0, 48)).max() < 16


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(tmp_path, orientation):
    path, image = str(tmp_path / 'a.jpg'), Image.fromarray(picture(40, 48))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=100, subsampling=0)
    whole = cv2.imread(path)[..., ::-1].astype(int)
    with open_raster(path) as raster, open_raster(path, as_stored=True) as stored:
        assert raster.size == whole.shape[:2] and stored.size == (40, 48)
        height, width = raster.size
        cut = raster.read(slice(3, height - 7), slice(11, width - 2))
        assert abs(cut - whole[3:-7, 11:-2]).max() < 8 and abs(raster.overview()[0] - whole).max() < 8


def test_without_rasterio_it_is_the_same(tmp_path, monkeypatch):
    image, path = Image.fromarray(picture(40, 48)), str(tmp_path / 'a.jpg')
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    few = image.quantize(16)
    for name in ('a.png', 'a.tif'):
        few.save(tmp_path / name)
    image.convert('1').save(tmp_path / 'b.png')
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    assert [open_raster(path, as_stored=stored).size for stored in (False, True)] == [(48, 40), (40, 48)]
    for name, stored, expected in (('a.png', few, few.convert('RGB')), ('a.tif', few, few.convert('RGB')),
                                   ('b.png', image.convert('1'), image.convert('1').convert('L'))):
        for raster, array in ((open_raster(str(tmp_path / name), as_stored=True), stored),
                              (open_raster(str(tmp_path / name)), expected)):
            assert (np.squeeze(raster.read(slice(0, 40), slice(0, 48))) == np.array(array)).all()


def test_only_the_bands_in_use_say_what_has_no_data(tmp_path):
    every = slice(0, 40), slice(0, 48)
    floats = picture(40, 48, 4).astype(np.float32)
    floats[:10, :, 3], floats[10:20, :, 2], floats[20:30] = np.nan, np.inf, -9999
    values = picture(40, 48, 4) // 2 + 1
    values[:10, :, :3], values[10:20] = 0, 0
    for array, used, gaps, more in ((floats, (2, 1, 2), range(20, 30), dict(nodata=-9999)),
                                    (floats, (1, 2, 3), range(10, 30), dict(nodata=-9999)),
                                    (values, (1, 2, 3), range(0, 20), dict(nodata=0)),
                                    (values, (4, 1), range(10, 20), dict(nodata=0)),
                                    (values[..., [0, 0, 0, 0]], (1, 2, 3), range(0, 20), dict(alpha='yes')),
                                    (values[..., [0, 0, 0, 0]], (1, 2, 4), (), dict(alpha='yes'))):
        with open_raster(save_raster(tmp_path / 'a.tif', array, **more)) as raster:
            raster.use(used)
            expected = ~np.isin(np.arange(40), list(gaps))
            assert raster.has_gaps == bool(gaps)
            for valid in (raster.valid(*every), raster.overview(used)[1]):
                assert valid is None if not gaps else (valid == expected[:, None]).all()


def test_files_that_are_refused_say_why(tmp_path):
    for kind in ('complex64', 'complex128'):
        path = save_raster(tmp_path / 'a.tif', picture(40, 48).astype(kind))
        with pytest.raises(InputError, match=f'its values are {kind}: allowed are integers and floats'):
            open_raster(path)
    path = save_raster(tmp_path / 'b.tif', picture(40, 48), compress='deflate', blockysize=8)
    (tmp_path / 'b.tif').write_bytes((tmp_path / 'b.tif').read_bytes()[:1500])
    with open_raster(path) as raster, pytest.raises(InputError, match='cut off or damaged: (?!.*See previous)'):
        raster.read(slice(0, 40), slice(0, 48))


def test_a_picture_without_a_place_on_earth_is_no_reason_to_warn(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), picture(40, 48, 4).astype(np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter('error', rasterio.errors.NotGeoreferencedWarning)
        with open_raster(str(tmp_path / 'a.png')) as raster:
            raster.write_cut(raster.read(slice(0, 40), slice(0, 48)), 0, 0, str(tmp_path / 'b.tif'))
    assert (tmp_path / 'b.tif').is_file()
