"""No file that the run's own decoder reads is refused for another decoder's reason."""
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image, PngImagePlugin

from mmseg_inceptionnext.datasets import check_dataset
from mmseg_inceptionnext.datasets.files import read
from mmseg_inceptionnext.errors import BrokenSampleError, LabelError

from broken_files import chunk, encode, png

SIZE = 40, 60
LABEL = (np.arange(2400) % 3).astype(np.uint8).reshape(SIZE)
PICTURE = np.dstack([LABEL * 90] * 3)


@pytest.fixture
def low_limit(monkeypatch):
    """Pillow refuses images of more than twice these pixels; real ones would take long."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', LABEL.size // 3)


def dataset(root, **of_labels):
    for folder in ('images', 'labels'):
        (root / folder).mkdir(exist_ok=True)
    prefix = dict(img_path='images', seg_map_path='labels')
    return dict(type='FolderDataset', data_root=str(root), data_prefix=prefix, serialize_data=False, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', **of_labels), dict(type='CheckLabels')],
        img_suffix=('.png', '.bmp', '.webp', '.tif'), seg_map_suffix=('.png', '.bmp', '.tif'),
        metainfo=dict(classes=('a', 'b', 'c')))


def check(cfg):
    return check_dataset(Config(dict(train_dataloader=dict(dataset=cfg))), ['train'])[0]


@pytest.mark.parametrize('image', ['a.tif', 'a.bmp', 'a.png', 'a.webp'])
@pytest.mark.parametrize('label', ['a.tif', 'a.bmp', 'a.png'])
def test_what_opencv_reads_is_not_refused_for_pillows_limit(tmp_path, low_limit, image, label):
    cfg = dataset(tmp_path, imdecode_backend='cv2')
    cv2.imwrite(str(tmp_path / 'images' / image), PICTURE)
    cv2.imwrite(str(tmp_path / 'labels' / label), LABEL)
    sample = DATASETS.build(cfg)[0]
    assert (sample['gt_seg_map'] == LABEL).all() and sample['img'].shape == PICTURE.shape
    assert not check(cfg).problems
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / 'images' / image)


def test_a_label_beyond_the_limit_of_its_own_decoder_gets_the_way_out(tmp_path, low_limit):
    cfg = dataset(tmp_path)  # MMSegmentation reads labels by Pillow
    for path, array in ((tmp_path / 'images/a.png', PICTURE), (tmp_path / 'labels/a.png', LABEL)):
        cv2.imwrite(str(path), array)
    words = r"cannot be decoded by pillow: Image size \(2400 pixels\) exceeds limit .* set imdecode_backend='cv2'"
    with pytest.raises(BrokenSampleError, match=f'labels/a.png: {words}'):
        DATASETS.build(cfg)[0]
    problem, = check(cfg).problems
    assert problem.kind == 'unreadable label' and "set imdecode_backend='cv2' in the step" in problem.message


def test_damage_beyond_the_limit_is_not_called_too_large(tmp_path, low_limit):
    cfg = dataset(tmp_path, imdecode_backend='cv2')
    cv2.imwrite(str(tmp_path / 'labels/a.png'), LABEL)
    (tmp_path / 'images/a.tif').write_bytes(encode(PICTURE, 'TIFF')[:200] + b'x' * 10)
    problem, = check(cfg).problems
    assert problem.kind == 'unreadable image' and 'exceeds limit' not in problem.message


@pytest.mark.parametrize('decoder,name,values', [
    ('pillow', 'palette', None),  # of which OpenCV gives the colours
    *((decoder, name, values) for decoder in ('pillow', 'cv2')
      for name, values in (('16-bit', np.uint16), ('BigTIFF', np.uint8), ('32-bit', np.int32)))])
def test_tiff_labels(tmp_path, decoder, name, values):
    cfg = dataset(tmp_path, imdecode_backend=decoder)
    cv2.imwrite(str(tmp_path / 'images/a.tif'), PICTURE)
    image = Image.fromarray(LABEL if values is None else LABEL.astype(values))
    if values is None:
        image.putpalette([9, 8, 7, 100, 2, 3] * 128)
    image.save(tmp_path / 'labels/a.tif', 'TIFF', **dict(big_tiff=True) if name == 'BigTIFF' else {})
    assert (DATASETS.build(cfg)[0]['gt_seg_map'] == LABEL).all() and not check(cfg).problems
    if values in (np.uint16, np.int32):
        Image.fromarray(LABEL.astype(values) + values(300)).save(tmp_path / 'labels/a.tif')
        with pytest.raises(LabelError, match='no 8-bit integers'):
            DATASETS.build(cfg)[0]


def with_chunk(data, kind, content, right=True):
    """A PNG with another chunk behind its header."""
    more = chunk(kind, content)
    return data[:33] + (more if right else more[:-1] + bytes([more[-1] ^ 1])) + data[33:]


@pytest.mark.parametrize('kind,content,right', [
    (b'zTXt', b'a\0\0' + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)), True), (b'pHYs', b'', True),
    (b'tEXt', b'comment\0text', False), (b'iCCP', b'none', True)])
def test_a_png_with_an_odd_chunk_beside_the_picture(tmp_path, kind, content, right):
    cfg = dataset(tmp_path)
    (tmp_path / 'images/a.png').write_bytes(with_chunk(png(PICTURE), kind, content, right))
    (tmp_path / 'labels/a.png').write_bytes(png(LABEL))
    assert (cv2.imread(str(tmp_path / 'images/a.png')) == PICTURE).all()
    assert (DATASETS.build(cfg)[0]['img'] == PICTURE).all() and not check(cfg).problems


def test_a_png_that_is_cut_off_or_damaged_anywhere_is_found(tmp_path):
    path, data = tmp_path / 'a.png', with_chunk(png(PICTURE), b'tEXt', b'a\0b')
    for length in range(len(data)):
        path.write_bytes(data[:length])
        if length > 8:
            with pytest.raises(ValueError, match='is cut off or damaged: its '):
                read(str(path))
    path.write_bytes(data + b'more')
    assert read(str(path)) == data + b'more'
    start = data.index(b'IDAT')
    for place in (*range(12, 33), *range(start, start + 4 + struct.unpack('>I', data[start - 4:start])[0] + 4)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
        with pytest.raises(ValueError, match='is cut off or damaged: '):
            read(str(path))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['a.bmp', 'a.tif'])
def test_182_million_pixels(tmp_path, name):
    cfg = dataset(tmp_path, imdecode_backend='cv2')
    array = np.zeros((13500, 13500), np.uint8)
    array[::50], array[1::50] = 2, 1
    for folder, compression in (('images', 1), ('labels', 5)):
        cv2.imwrite(str(tmp_path / folder / name), array, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert DATASETS.build(cfg)[0]['gt_seg_map'].shape == array.shape
    report = check(cfg)
    assert not report.problems and report.counts[:3].tolist() == [12960 * 13500, 270 * 13500, 270 * 13500]
