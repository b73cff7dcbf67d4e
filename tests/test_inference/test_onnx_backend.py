"""ONNX files that are used, and those that are refused; what is done to the logits, against PyTorch."""
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.export import Settings, export_onnx
from mmseg_inceptionnext.inference.onnx_backend import OnnxBackend, _Image, linear_matrix
from mmseg_inceptionnext.inference.page import segment_file

from utils import TOY, run_tool, save_checkpoint

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def exported(tmp_path_factory, toy_root):
    root = tmp_path_factory.mktemp('onnx')
    image = sorted((toy_root / 'images/validation').iterdir())[0]
    checkpoint = save_checkpoint(TOY, root / 'toy.pth')
    export_onnx(TOY, str(checkpoint), str(root / 'toy.onnx'), [str(image)], Settings())
    return root / 'toy.onnx', image


def with_metadata(exported, path, **changes):
    model = onnx.load(exported[0])
    meta = {entry.key: entry.value for entry in model.metadata_props}
    meta.update(changes)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in meta.items() if value is not None})
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size,new_size', [(7, 29), (29, 7), (1, 5), (5, 1), (12, 12)])
def test_interpolation_is_pytorchs(size, new_size, align_corners):
    x = torch.randn(1, 1, size, dtype=torch.float64)
    expected = F.interpolate(x, new_size, mode='linear', align_corners=align_corners)[0, 0]
    result = linear_matrix(size, new_size, align_corners) @ x[0, 0].numpy()
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-12)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('channels', [1, 5, 300])
def test_logits_become_masks_as_in_pytorch(exported, align_corners, channels):
    """Resized to the network's input, then to the image, each bilinearly."""
    backend = OnnxBackend(str(exported[0]))
    backend._align_corners, backend._threshold = align_corners, 0.3
    backend.classes = [str(i) for i in range(max(2, channels))]
    logits = torch.randn(channels, 9, 13)
    image = _Image(np.zeros((1, 3, 36, 52), np.uint8), (101, 75))
    mask, probabilities = backend._finish(logits.numpy(), image, True)
    up = F.interpolate(logits[None].double(), (36, 52), mode='bilinear', align_corners=align_corners)
    up = F.interpolate(up, (101, 75), mode='bilinear', align_corners=align_corners)[0]
    if channels == 1:
        expected = torch.cat([1 - up.sigmoid(), up.sigmoid()])
        classes = up[0].sigmoid() > 0.3
    else:
        expected, classes = up.softmax(0), up.argmax(0)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)
    assert (mask == classes.numpy()).mean() > 0.999
    assert mask.dtype == (np.uint16 if channels > 256 else np.uint8) and probabilities.dtype == np.float32
    same, none = backend._finish(logits.numpy(), image, False)
    np.testing.assert_array_equal(same, mask)
    assert none is None


def test_no_pytorch_in_the_loop(exported, monkeypatch):
    segmenter = Segmenter(exported[0])
    expected = segmenter(exported[1]).mask
    for name in ('tensor', 'from_numpy', 'as_tensor', 'zeros', 'empty', 'stack'):
        monkeypatch.setattr(torch, name, None)
    for name in [name for name in sys.modules if name == 'torch' or name.startswith('torch.')]:
        monkeypatch.setitem(sys.modules, name, None)
    np.testing.assert_array_equal(segmenter(exported[1]).mask, expected)


def test_batches_and_lists(exported, toy_root):
    paths = sorted((toy_root / 'images/validation').iterdir())
    one, many = Segmenter(exported[0]), Segmenter(exported[0], batch_size=3)
    images = [*paths, paths[0], paths[0]]
    for first, second in zip(one(images), many(images)):
        assert (first.mask == second.mask).mean() > 0.9999


@pytest.mark.parametrize('changes,words', [
    (dict(classes=None), 'lacks classes in its metadata: it was not written by tools/export_onnx.py'),
    (dict(classes='{'), 'its metadata cannot be used'),
    (dict(palette='[["red"]]'), 'its metadata cannot be used'),
    (dict(pipeline=json.dumps([dict(type='LoadImageFromFile')])), 'the pipeline names .*LoadImageFromFile'),
    (dict(pipeline='[{"type": "Resize", "scale": [8, 8], "backend": "os.system"}]'), 'the pipeline names .*os.system'),
    (dict(pipeline='["Resize"]'), 'its metadata cannot be used'),
    (dict(pipeline='[{"type": "Resize", "scale": [0, 0]}]'), 'sizes are numbers above 0'),
    (dict(pipeline='[{"type": "ResizeToMultiple", "size_divisor": "x"}]'), 'sizes are numbers above 0'),
    (dict(pipeline='[{"type": "Resize"}]'), 'sizes are numbers above 0'),
    (dict(pipeline='[' * 100000), 'its metadata cannot be used'),
    (dict(classes='["a", "b"]', palette='[[0, 0, 0], [1, 1, 1]]'), '2 classes for a network with 150 outputs'),
    (dict(classes='["a"]', palette='[[0, 0, 0]]'), '1 classes for a network with 150 outputs'),
    (dict(classes='["a", "a"]', palette='[[0, 0, 0], [1, 1, 1]]'), 'two classes have the same name'),
    (dict(classes='["a\\u001b[2J"]', palette='[[0, 0, 0]]'), 'no list of printable names'),
    (dict(classes='["a"]', palette='[[0, 0, 300]]'), 'three whole numbers from 0 to 255'),
    (dict(output='foo'), 'its metadata cannot be used'),
])
def test_metadata_are_data(exported, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        Segmenter(with_metadata(exported, tmp_path / 'a.onnx', **changes))


def foreign(path, nodes, rank, elements, **meta):
    """A file of someone else, with metadata as ours have, for two classes."""
    image = onnx.helper.make_tensor_value_info('image', onnx.TensorProto.UINT8, ['N', 3, 'H', 'W'])
    output = onnx.helper.make_tensor_value_info('y', elements, list('NABCD')[:rank])
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, [*inputs], [name], **settings)
                                    for kind, inputs, name, settings in nodes], 'graph', [image], [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=9)
    onnx.helper.set_model_props(model, dict(dict(
        classes='["a", "b"]', palette='[[0, 0, 0], [1, 1, 1]]', pipeline='[]', align_corners='false'), **meta))
    onnx.save(model, path)
    return str(path)


UINT8, FLOAT = 2, 1  # in ONNX
LARGEST = ('ReduceMax', ['image'], 'y', dict(axes=[1], keepdims=0))


@pytest.mark.parametrize('nodes,rank,elements,output,words', [
    ([LARGEST], 3, UINT8, 'classes', r'gives uint8, 1 x 8 x 9, from 7 to 200, where .* promise ids from 0 to 1, 1 x h'),
    ([('Identity', ['image'], 'y', {})], 4, UINT8, 'classes', r'gives uint8, 1 x 3 x 8 x 9, where'),
    ([('Cast', ['image'], 'x', dict(to=FLOAT)), ('ReduceMax', ['x'], 'y', dict(axes=[1], keepdims=0))], 3, FLOAT,
     'classes', 'gives float32, 1 x 8 x 9, where'),
    ([('Cast', ['image'], 'x', dict(to=FLOAT)), ('Transpose', ['x'], 'y', dict(perm=[0, 2, 1, 3]))], 4, FLOAT, 'logits',
     'gives float32, 1 x 8 x 3 x 9, where its metadata promise the logits of 2 classes, 1 x classes x h x w'),
    ([('ReduceMax', ['image'], 'y', dict(axes=[1], keepdims=1))], 4, UINT8, 'logits', 'gives uint8, 1 x 1 x 8 x 9, w'),
    ([('Cast', ['image'], 'x', dict(to=FLOAT)), ('ReduceMax', ['x'], 'y', dict(axes=[1, 2, 3], keepdims=0))], 1, FLOAT,
     'logits', 'gives float32, 1, where'),
])
def test_outputs_that_are_not_what_the_metadata_say_are_refused(tmp_path, nodes, rank, elements, output, words):
    path = foreign(tmp_path / 'a.onnx', nodes, rank, elements, output=output)
    image = np.full((8, 9, 3), 200, np.uint8)
    image[0, 0] = 7
    with pytest.raises(RuntimeError, match=f'^{path} {words}') as error:
        Segmenter(path)(image)
    assert str(error.value).endswith('; export it by tools/export_onnx.py')
    Image.fromarray(image).save(tmp_path / 'a.png')
    text = segment_file(Segmenter(path), str(tmp_path / 'a.png'))
    assert 'class="failed"' in text and 'a.onnx gives' in text


def test_files_of_others_that_keep_the_promise_are_used(tmp_path):
    path = foreign(tmp_path / 'a.onnx', [LARGEST], 3, UINT8, output='classes')
    image = np.zeros((8, 9, 3), np.uint8)
    image[2] = 1
    np.testing.assert_array_equal(Segmenter(path)(image).mask, image[..., 0])


def test_a_file_has_no_model_of_pytorch(exported):
    segmenter = Segmenter(exported[0])
    for name in ('model', 'cfg'):
        with pytest.raises(AttributeError, match=f'{exported[0]} is an ONNX file, which has no PyTorch model and no'):
            getattr(segmenter, name)


def test_files_and_settings_that_cannot_be_used_are_explained(exported, tmp_path, monkeypatch):
    (tmp_path / 'text.onnx').write_text('no graph')
    for path in (tmp_path / 'text.onnx', tmp_path / 'none.onnx'):
        with pytest.raises(ValueError, match=f'{path} cannot be opened by ONNX Runtime'):
            Segmenter(path)
    with pytest.raises(ValueError, match='--device cuda:0 cannot be used here: this ONNX Runtime has .*CPUExecution'):
        Segmenter(exported[0], device='cuda:0')
    with pytest.raises(ValueError, match='leave --config, --amp, --tta and --compile out'):
        Segmenter(exported[0], tta=True)
    classes = with_metadata(exported, tmp_path / 'classes.onnx', output='classes')
    with pytest.raises(ValueError, match='export it with --output logits'):
        Segmenter(classes, probabilities=True)(exported[1])
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ValueError, match='runs in ONNX Runtime, which cannot be imported .*: pip install onnxruntime'):
        Segmenter(exported[0])


def test_images_that_the_graph_cannot_take_are_named(exported, tmp_path):
    """A file for one size whose pipeline gives another."""
    fixed = tmp_path / 'fixed.onnx'
    export_onnx(TOY, str(exported[0].with_suffix('.pth')), str(fixed), [str(exported[1])], Settings(shape=(64, 96)))
    wrong = with_metadata((fixed, ), tmp_path / 'wrong.onnx', pipeline='[]')
    result = run_tool('tools/infer.py', wrong, exported[1], '--out-dir', tmp_path / 'out', check=False)
    assert result.returncode == 1 and 'Traceback' not in result.stdout
    assert f'{exported[1]}: ONNX Runtime: ' in result.stdout
