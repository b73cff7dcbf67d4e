"""The page: its HTML, its errors, and two users at once."""
import base64
import io
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import SegmentationResult, infer, page
from mmseg_inceptionnext.inference.viewer import draw_message, draw_result

from broken_files import chunk, half
from utils import ROOT

EVIL = '<script>alert(1)</script> & "${1 + 1}" {{value}}'
CLASSES = ('sky', EVIL, 'never', 'tiny')
PALETTE = [[0, 0, 255], [255, 128, 0], [0, 255, 0], [1, 2, 3]]


class Reader(HTMLParser):
    """The elements of a piece of HTML: tag, attributes, and the text directly inside."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ''])

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2] += data

    def all(self, tag, kind=None):
        return [(attrs, text.strip()) for name, attrs, text in self.elements
                if name == tag and kind in (None, attrs.get('class'))]


class Fake:
    """A segmentor that says which images it was given; two at once would be noticed."""
    classes, palette = CLASSES, PALETTE

    def __init__(self, seconds=0., error=None):
        self.seconds, self.error, self.calls, self.running, self.most = seconds, error, 0, 0, 0

    def __call__(self, path):
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        self.running -= 1
        if self.error:
            raise self.error
        with Image.open(path) as file:
            image = np.array(file.convert('RGB'))
        return SegmentationResult(image, np.full(image.shape[:2], image[0, 0, 0] > 128, np.uint8), CLASSES, PALETTE)


@pytest.fixture
def scene(toy_root):
    return str(toy_root / 'images/validation/toy_validation_00000.jpg')


def png_head(path, width, height):
    """A PNG that promises more than it holds."""
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(b'0')) + chunk(b'IEND', b''))
    return str(path)


def content(url):
    return base64.b64decode(url.partition(';base64,')[2])


def make_result(num_classes=4):
    mask = np.zeros((40, 50), np.uint8 if num_classes <= 256 else np.uint16)
    mask[:10], mask[0, 0] = 1, num_classes - 1  # 1500, 499 and 1 of 2000 pixels
    names = CLASSES + tuple(f'class {i}' for i in range(len(CLASSES), num_classes))
    return SegmentationResult(np.full((40, 50, 3), 100, np.uint8), mask, names, (PALETTE * num_classes)[:num_classes])


def test_the_legend_names_colours_and_shares_of_what_is_there():
    reader = Reader(draw_result(make_result(), 'a.jpg'))
    assert [text for _, text in reader.all('span', 'name')] == ['sky', EVIL, 'tiny']
    assert [text for _, text in reader.all('span', 'share')] == ['75.0 %', '24.9 %', '< 0.1 %']
    assert [attrs['style'] for attrs, _ in reader.all('span', 'swatch')] == [
        'background: rgb(0 0 255)', 'background: rgb(255 128 0)', 'background: rgb(1 2 3)']
    assert [attrs['data-id'] for attrs, _ in reader.all('li')] == ['0', '1', '3']


def test_names_from_a_file_are_text():
    text = draw_result(make_result(), EVIL + '.jpg') + draw_message(EVIL, 'failed')
    reader = Reader(text)
    assert not reader.all('script')
    assert reader.all('img')[0][0]['alt'] == f'{EVIL}.jpg'
    assert reader.all('a')[0][0]['download'] == f'{EVIL}.png'
    assert reader.all('div', 'failed')[0][1] == EVIL


@pytest.mark.parametrize('num_classes', [4, 300])
def test_the_browser_gets_each_class_id(num_classes):
    result = make_result(num_classes)
    reader = Reader(draw_result(result, 'a.jpg'))
    ids = np.frombuffer(zlib.decompress(content(reader.all('div', 'stack')[0][0]['data-ids'])), '<u2')
    np.testing.assert_array_equal(ids.reshape(40, 50), result.mask)
    photo, colors = (np.array(Image.open(io.BytesIO(content(attrs['src'])))) for attrs, _ in reader.all('img'))
    np.testing.assert_array_equal(photo, result.image)  # of one colour, which JPEG keeps
    np.testing.assert_array_equal(colors, np.array(result.palette)[result.mask])


def test_the_download_is_what_infer_writes(checkpoint, scene, tmp_path):
    segmenter = Segmenter(checkpoint, fuse_model=True)
    attrs, _ = Reader(page.segment_file(segmenter, scene)).all('a')[0]
    infer(segmenter, [scene], str(tmp_path))
    assert attrs['download'] == 'toy_validation_00000.png'
    assert content(attrs['href']) == (tmp_path / 'toy_validation_00000.png').read_bytes()


def test_bad_files_get_a_sentence(checkpoint, scene, tmp_path):
    segmenter = Segmenter(checkpoint)
    jpeg = Path(scene).read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(half(jpeg))
    (tmp_path / 'heavy.jpg').write_bytes(jpeg + bytes(21 << 20))
    (tmp_path / '<b>.jpg').write_text('no image')
    (tmp_path / 'netpbm.png').write_bytes(b'P6 1 1 255 abc')
    png_head(tmp_path / 'large.png', 6000, 5000)
    png_head(tmp_path / 'huge.png', 100000, 100000)
    png_head(tmp_path / 'long.png', 1, 16385)
    sentences = {
        'cut.jpg': 'cannot be read as an image: it cannot be decoded by pillow: image file is truncated',
        'heavy.jpg': 'has 21.0 MB; at most 20 are taken',
        '<b>.jpg': 'is no image that can be read here; JPEG, PNG, BMP, WEBP, TIFF are taken',
        'netpbm.png': 'is no image that can be read here; JPEG, PNG, BMP, WEBP, TIFF are taken',
        'large.png': 'has 6000 x 5000 pixels; at most 25 million are taken',
        'huge.png': 'has too many pixels; at most 25 million are taken',
        'long.png': 'has 1 x 16385 pixels; at most 16384 a side are taken'}
    for name, words in sentences.items():
        text = page.segment_file(segmenter, str(tmp_path / name))
        assert Reader(text).all('div', 'failed')[0][1].startswith(f'{name}: {words}')


@pytest.mark.parametrize('error,words', [(InputError('no memory'), 'no memory'), (MemoryError(), 'MemoryError')])
def test_a_model_that_fails_gets_a_sentence(scene, error, words):
    text = page.segment_file(Fake(error=error), scene)
    assert Reader(text).all('div', 'failed')[0][1] == f'toy_validation_00000.jpg: {words}'


def test_examples_are_the_toy_scenes_or_of_a_folder(toy_root, tmp_path):
    scenes = page.draw_scenes(str(tmp_path))
    drawn, stored = (np.array(Image.open(path), float) for path in (
        scenes[1], toy_root / 'images/validation/toy_validation_00001.jpg'))
    assert abs(drawn - stored).mean() < 1  # the same scene, by another JPEG encoder at the most
    assert page.list_examples(str(toy_root / 'images/validation')) == [
        str(toy_root / f'images/validation/toy_validation_0000{i}.jpg') for i in range(3)]
    for folder in (tmp_path / 'none', ROOT / 'tools'):
        with pytest.raises(ValueError, match=f'--examples {folder}: holds no image'):
            page.list_examples(str(folder))


def test_thumbnails_survive_bad_files(scene, tmp_path):
    (tmp_path / 'bad.jpg').write_text('no image')
    good, bad = map(page.read_thumbnail, [scene, str(tmp_path / 'bad.jpg')])
    assert max(good.size) <= page.THUMBNAIL and bad.getpixel((0, 0)) == (128, 128, 128)


def test_ports_are_checked():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f'--port {port}: no page can be served there: Address already in use'):
            page.find_port('127.0.0.1', port)
    assert page.find_port('127.0.0.1', port) == port
    assert page.find_port('127.0.0.1', 0) > 0
    with pytest.raises(ValueError, match='--port 70000: allowed are'):
        page.find_port('127.0.0.1', 70000)


def test_without_gradio_there_is_a_command(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(ValueError, match="pip install 'gradio>=6'"):
        page.load_gradio()


def test_two_users_are_served_one_after_the_other(tmp_path, monkeypatch):
    pytest.importorskip('gradio', reason='the page needs Gradio')
    import httpx
    from gradio_client import Client, handle_file
    shown = {}

    def visit(name, color, url):
        Image.new('RGB', (8, 8), color).save(tmp_path / name)
        shown[name] = Client(url, verbose=False).predict(handle_file(str(tmp_path / name)), api_name='/segment')

    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    fake = Fake(seconds=0.5)
    with page.serve(fake, 'fake', '127.0.0.1', 0) as url:
        users = [threading.Thread(target=visit, args=(f'{color}.png', color, url)) for color in ('white', 'black')]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert len(list((tmp_path / 'temporary').rglob('*.png'))) == 2
        assert not httpx.post(f'{url}gradio_api/run/segment', json=dict(data=[None])).is_success  # past the queue
        assert page.EMPTY in Client(url, verbose=False).predict(None, api_name='/segment')
        with pytest.raises(ValueError, match='Address already in use'):
            page.find_port('127.0.0.1', int(url.rstrip('/').rpartition(':')[2]))
    assert (fake.calls, fake.most) == (2, 1)
    assert not list((tmp_path / 'temporary').rglob('*.png'))  # uploads are gone
    for name, expected in (('white.png', EVIL), ('black.png', 'sky')):
        reader = Reader(shown[name])
        assert [text for _, text in reader.all('span', 'name')] == [expected]
        assert reader.all('a')[0][0]['download'] == name
