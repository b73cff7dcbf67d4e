"""Five images through every door: tools/test.py, tools/infer.py with PyTorch and ONNX Runtime, Segmenter, the page."""
import re
import zlib
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.inference.page import serve

from utils import TOY, run_tool, save_checkpoint

pytest.importorskip('onnxruntime')
pytestmark = pytest.mark.slow
COUNT = 5


@pytest.fixture(scope='module')
def root(tmp_path_factory, toy_root):
    """A checkpoint, its export, and a dataset of five images with what tools/test.py predicts of them."""
    root = tmp_path_factory.mktemp('ways')
    torch.manual_seed(0)
    save_checkpoint(TOY, root / 'toy.pth')
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        (root / kind / 'validation').mkdir(parents=True)
        for i, path in enumerate(sorted((toy_root / kind / 'training').iterdir())[:COUNT]):
            (root / f'{kind}/validation/{i}.{suffix}').write_bytes(path.read_bytes())
    run_tool('tools/test.py', TOY, root / 'toy.pth', '--work-dir', root / 'work', '--out', root / 'test',
             '--cfg-options', f'data_root={root}')
    text = run_tool('tools/export_onnx.py', TOY, root / 'toy.pth', '--out', root / 'toy.onnx', '--images',
                    root / 'images').stdout
    share = re.search(r'5 images: .* ([\d.]+) % of the pixels have the same class', text)
    assert float(share.group(1)) >= 99.9
    return root


@pytest.fixture(scope='module')
def differing(root):
    """Counts the pixels whose class is not that of the evaluation; takes the class maps in order."""
    expected = [np.array(Image.open(root / f'test/{i}.png')).astype(int) - 1 for i in range(COUNT)]  # ADE20K counts
    assert len({mask.tobytes() for mask in expected}) == COUNT and all(len(np.unique(mask)) > 3 for mask in expected)

    def count(masks):
        assert [mask.shape for mask in masks] == [mask.shape for mask in expected]
        return sum(int((mask != other).sum()) for mask, other in zip(masks, expected))

    count.pixels = sum(mask.size for mask in expected)
    return count


def by_infer(root, file, *options):
    out = root / f'infer{"".join(options)}_{file}'
    run_tool('tools/infer.py', root / file, root / 'images', '--out-dir', out, '--save', 'index', *options)
    return [np.array(Image.open(out / f'validation/{i}.png')).astype(int) for i in range(COUNT)]


def by_page(root, segmenter):
    """What the browser paints of each upload."""
    pytest.importorskip('gradio', reason='the page needs Gradio')
    from gradio_client import Client, handle_file
    masks = []
    with serve(segmenter, 'toy', '127.0.0.1', 0) as url:
        client = Client(url, verbose=False)
        for i in range(COUNT):
            text = client.predict(handle_file(str(root / f'images/validation/{i}.jpg')), api_name='/segment')
            packed = re.search(r'data-ids="data:application/octet-stream;base64,([^"]+)"', text).group(1)
            height, width = (int(re.search(rf'data-{side}="(\d+)"', text).group(1)) for side in ('height', 'width'))
            masks.append(np.frombuffer(zlib.decompress(b64decode(packed)), '<u2').reshape(height, width))
    return masks


def test_infer_py_segmenter_and_page_give_the_class_maps_of_the_evaluation(root, differing):
    segmenter = Segmenter(root / 'toy.pth')
    assert differing([segmenter(root / f'images/validation/{i}.jpg').mask for i in range(COUNT)]) == 0
    assert differing(by_infer(root, 'toy.pth', '--no-fuse')) == 0
    assert differing(by_page(root, segmenter)) == 0


def test_folded_norms_change_what_rounding_changes(root, differing):
    """By default tools/infer.py and tools/app.py fuse. The logits differ by 1e-6 of the largest then, and with these
    random weights the two likeliest classes of one pixel in 258719 are as near to each other."""
    allowed = differing.pixels / 1e5
    assert allowed < 3
    masks = by_infer(root, 'toy.pth')
    assert differing(masks) <= allowed
    page = by_page(root, Segmenter(root / 'toy.pth', fuse_model=True))
    assert all((one == other).all() for one, other in zip(masks, page))


def test_onnx_runtime_gives_99_9_percent_of_them(root, differing, capsys):
    share = 1 - differing(by_infer(root, 'toy.onnx')) / differing.pixels
    with capsys.disabled():
        print(f'tools/infer.py with ONNX Runtime: {100 * share:.4f} % of the pixels have the class of tools/test.py')
    assert share >= 0.999
