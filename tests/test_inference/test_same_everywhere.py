"""Five images through every door: tools/test.py, tools/infer.py with PyTorch and ONNX Runtime, Segmenter, the page."""
import re
import zlib
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.inference.page import segment_file

from utils import TOY, run_tool, save_checkpoint

pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def masks(tmp_path_factory, toy_root):
    """For each way the class maps by the name of the image."""
    root = tmp_path_factory.mktemp('ways')
    checkpoint = save_checkpoint(TOY, root / 'toy.pth')
    folder = toy_root / 'images/training'
    for i, path in enumerate(sorted(folder.iterdir())[:5]):
        (root / 'images/validation').mkdir(parents=True, exist_ok=True)
        (root / 'annotations/validation').mkdir(parents=True, exist_ok=True)
        (root / f'images/validation/{i}.jpg').write_bytes(path.read_bytes())
        label = toy_root / f'annotations/training/{path.stem}.png'
        (root / f'annotations/validation/{i}.png').write_bytes(label.read_bytes())
    images = root / 'images/validation'
    run_tool('tools/test.py', TOY, checkpoint, '--work-dir', root / 'work', '--out', root / 'test', '--cfg-options',
             f'data_root={root}')
    text = run_tool('tools/export_onnx.py', TOY, checkpoint, '--out', root / 'toy.onnx', '--images', images).stdout
    share = re.search(r'5 images: .* ([\d.]+) % of the pixels have the same class', text)
    assert float(share.group(1)) >= 99.9
    for name, file, option in (('torch', checkpoint, '--no-fuse'), ('fused', checkpoint, '--fuse'),
                               ('onnx', root / 'toy.onnx', '--fuse')):
        run_tool('tools/infer.py', file, images, '--out-dir', root / name, option, '--save', 'index')
    found = {name: {i: np.array(Image.open(root / f'{name}/{i}.png')).astype(int) for i in range(5)}
             for name in ('test', 'torch', 'fused', 'onnx')}
    found['test'] = {i: mask - 1 for i, mask in found['test'].items()}  # in ADE20K's values
    segmenter, page = Segmenter(checkpoint), Segmenter(checkpoint, fuse_model=True)  # as tools/app.py
    found['segmenter'] = {i: segmenter(images / f'{i}.jpg').mask for i in range(5)}
    found['page'] = {}
    for i in range(5):
        packed = re.search(r'data-ids="data:application/octet-stream;base64,([^"]+)"',
                           segment_file(page, str(images / f'{i}.jpg'))).group(1)
        ids = np.frombuffer(zlib.decompress(b64decode(packed)), '<u2')
        found['page'][i] = ids.reshape(found['test'][i].shape)
    return found


@pytest.mark.parametrize('way,least', [
    ('torch', 1), ('segmenter', 1), ('page', 0.9999), ('fused', 0.9999), ('onnx', 0.999)])
def test_class_maps_are_those_of_the_evaluation(masks, way, least):
    expected = masks['test']
    assert len(expected) == 5 and len(np.unique(expected[0])) > 3
    equal = [(masks[way][i] == mask) for i, mask in expected.items()]
    share = sum(part.sum() for part in equal) / sum(part.size for part in equal)
    assert share >= least
