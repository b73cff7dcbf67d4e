"""ONNX files that are used, and those that are refused; what is done to the logits, against PyTorch."""
import copy
import json
import os
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.export import ExportSettings, export_onnx
from mmseg_inceptionnext.inference import infer
from mmseg_inceptionnext.inference.onnx_backend import OnnxBackend, resized
from mmseg_inceptionnext.inference.page import segment_file

from utils import TOY, save_checkpoint

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def exported(tmp_path_factory, toy_root):
    root = tmp_path_factory.mktemp('onnx')
    image = sorted((toy_root / 'images/validation').iterdir())[0]
    checkpoint = save_checkpoint(TOY, root / 'toy.pth')
    export_onnx(TOY, str(checkpoint), str(root / 'toy.onnx'), [str(image)], ExportSettings())
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
@pytest.mark.parametrize('small,size,new_size', [
    ((9, 13), (36, 52), (101, 75)), ((29, 71), (7, 15), (3, 5)), ((7, 5), (29, 3), (11, 130)),
    ((1, 1), (1, 5), (5, 1)), ((12, 12), (12, 12), (12, 12)), ((2, 3), (200, 300), (5, 7)),
    ((3000, 8), (12000, 32), (12000, 1)), ((8, 3000), (32, 12000), (1, 12000))])
def test_interpolation_is_pytorchs(small, size, new_size, align_corners):
    """Twice, in steps that both enlarge, both reduce, or do either; strips, too."""
    logits = torch.randn(1, 3, *small)
    expected = logits.double()
    for sides in (size, new_size):
        expected = F.interpolate(expected, sides, mode='bilinear', align_corners=align_corners)
    result = np.full((*new_size, 3), np.nan, np.float32)
    for rows, columns, tile in resized(logits[0].numpy(), size, new_size, align_corners):
        result[rows, columns] = tile
    np.testing.assert_allclose(result.transpose(2, 0, 1), expected[0].numpy(), atol=2e-6)


def test_interpolation_of_a_strip_needs_little_memory():
    logits = np.zeros((2, 8, 3000), np.float32)
    tracemalloc.start()
    for _ in resized(logits, (32, 12000), (1, 12000), False):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('channels', [1, 5, 300])
def test_logits_become_masks_as_in_pytorch(exported, align_corners, channels):
    """Resized to the network's input, then to the image, each bilinearly."""
    backend = OnnxBackend(str(exported[0]), probabilities=True)
    backend._align_corners, backend._threshold = align_corners, 0.3
    backend.classes = [str(i) for i in range(max(2, channels))]
    logits = torch.randn(channels, 9, 13)
    mask, probabilities = backend._finish(logits.numpy(), (36, 52), (101, 75))
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
    backend.probabilities = False
    same, none = backend._finish(logits.numpy(), (36, 52), (101, 75))
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
    (dict(classes='["a", "a"]', palette='[[0, 0, 0], [1, 1, 1]]'), 'each class needs a name of its own'),
    (dict(classes='[]', palette='[]'), 'each class needs a name of its own'),
    (dict(classes='["a"]', palette='[[0, 0, 300]]'), 'three whole numbers from 0 to 255'),
    (dict(output='foo'), 'its metadata cannot be used'),
    (dict(output='foo' * 10**6), 'its metadata cannot be used: .{1,500}$'),
    (dict(classes=json.dumps([str(i) for i in range(10**6)])), 'they have a text of more than 4194304 characters'),
    (dict(classes=json.dumps(list(map(str, range(65537))))), 'no list of up to 65536 names'),
    (dict(classes=json.dumps(['a' * 201])), 'up to 200 characters'),
    (dict(classes='"ab"'), 'no list of up to'), (dict(classes='[1, 2]'), 'no list of up to'),
    (dict(classes='["a"]', palette='[[0, 0, 1.5]]'), 'three whole numbers from 0 to 255'),
    (dict(pipeline='"Resize"'), 'the pipeline is no list of transforms'),
    (dict(pipeline='{}'), 'the pipeline is no list of transforms'),
    (dict(pipeline='[{"type": ["Resize"]}]'), 'allowed are'), (dict(pipeline='[{}]'), 'allowed are'),
    (dict(pipeline='[{"type": "Resize", "scale": [30000, 30000]}]'), 'for up to 16777216 pixels, factors up to 4 and'),
    (dict(pipeline='[{"type": "Resize", "scale": 4097}]'), 'for up to 16777216 pixels'),
    (dict(pipeline='[{"type": "Resize", "scale_factor": 1000}]'), 'factors up to 4'),
    (dict(pipeline='[{"type": "Resize", "scale_factor": [5.0, 5.0]}]'), 'factors up to 4'),
    (dict(pipeline='[{"type": "Resize", "scale": [8, 8], "scale_factor": 5.0}]'), 'factors up to 4'),
    (dict(pipeline='[{"type": "ResizeToMultiple", "size_divisor": 10000}]'), 'divisors up to 4096'),
    (dict(pipeline='[{"type": "ResizeToMultiple", "size_divisor": NaN}]'), 'sizes are numbers above 0'),
    (dict(pipeline='[{"type": "Resize", "scale": [8, 8, 8]}]'), 'sizes are numbers above 0'),
    (dict(pipeline='[{"type": "Resize", "scale": [true, 8]}]'), 'sizes are numbers above 0'),
    (dict(pipeline=f'[{{"type": "Resize", "scale": [1{"0" * 400}, 0.5]}}]'), 'its metadata cannot be used'),
    (dict(pipeline=json.dumps([dict(type='Resize', scale_factor=4.)] * 9)), 'the pipeline names Resize more than once'),
    (dict(threshold='nan'), 'threshold nan; allowed is 0 to 1'), (dict(threshold='2'), 'allowed is 0 to 1'),
])
def test_metadata_are_data(exported, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        Segmenter(with_metadata(exported, tmp_path / 'a.onnx', **changes))


def test_metadata_within_the_limits_are_used(exported, tmp_path):
    steps = [dict(type='Resize', scale_factor=[1.5, 0.5]), dict(type='ResizeToMultiple', size_divisor=32)]
    segmenter = Segmenter(with_metadata(exported, tmp_path / 'a.onnx', pipeline=json.dumps(steps)))
    prepared = segmenter.prepare(np.zeros((96, 128, 3), np.uint8))
    assert prepared.data['img'].shape == (1, 3, 64, 192)


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
    ([LARGEST], 3, UINT8, 'classes', r'gives uint8, 1 x 8 x 9, from 7 to 200, where .* ids from 0 to 1, 1 x h'),
    ([('Identity', ['image'], 'y', {})], 4, UINT8, 'classes', r'gives uint8, 1 x 3 x 8 x 9, '),
    ([('Cast', ['image'], 'x', dict(to=FLOAT)), ('ReduceMax', ['x'], 'y', dict(axes=[1], keepdims=0))], 3, FLOAT,
     'classes', 'gives float32, 1 x 8 x 9, '),
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
    with pytest.raises(CheckpointError, match=f'^{path} {words}') as error:
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


THREE = dict(classes='["a", "b", "c"]', palette='[[0, 0, 0], [1, 1, 1], [2, 2, 2]]')


@pytest.mark.parametrize('divisor', ['x', 'zero'], ids=['NaN', 'infinite'])
def test_logits_that_are_not_finite_are_an_error(tmp_path, divisor):
    path = foreign(tmp_path / 'a.onnx', [
        ('Cast', ['image'], 'x', dict(to=FLOAT)), ('Sub', ['x', 'x'], 'zero', {}), ('Div', ['x', divisor], 'y', {})],
        4, FLOAT, output='logits', **THREE)
    image = np.full((8, 9, 3), 7, np.uint8)
    segmenter = Segmenter(path, batch_size=2)
    if divisor == 'x':
        assert segmenter(image).mask.max() == 0
        image[2, 3] = 0  # 0 / 0
    with pytest.raises(CheckpointError, match=f'^{path} gives logits that are NaN or infinite'):
        segmenter([image, image])


def with_nan(source, path, name='conv_seg.bias'):
    """A file one of whose weights is NaN."""
    model = onnx.load(source)
    tensor, = [tensor for tensor in model.graph.initializer if tensor.name.endswith(name)]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[-1] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    return str(path)


def test_weights_that_are_not_finite_are_found(exported, tmp_path, monkeypatch):
    """When the file is opened; without the onnx package when an image is predicted, also where class ids come out."""
    ids = tmp_path / 'ids.onnx'
    export_onnx(TOY, str(exported[0].with_suffix('.pth')), str(ids), [str(exported[1])],
                ExportSettings(output='classes'))
    for source in (exported[0], ids):
        path = with_nan(source, tmp_path / 'nan.onnx')
        with pytest.raises(ValueError, match=f'^{path} cannot be opened: 1 of its .* weights hold NaN or infinite '
                                             'numbers, the first is .*conv_seg.bias; export it anew'):
            Segmenter(path)
        for package in ('onnx', 'onnx.numpy_helper'):
            monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CheckpointError, match=f'^{path} gives .*logits that are NaN or infinite'):
            Segmenter(path)(exported[1])
        assert Segmenter(source)(exported[1]).mask.any()
        monkeypatch.undo()


def test_weights_in_other_files_are_not_read(exported, tmp_path):
    onnx.save(onnx.load(exported[0]), tmp_path / 'a.onnx', save_as_external_data=True, location='weights')
    with pytest.raises(ValueError, match='a.onnx cannot be opened: its weights are in other files, which are not read'):
        Segmenter(tmp_path / 'a.onnx')


def test_what_a_file_says_is_printed_on_one_line(tmp_path):
    path = foreign(tmp_path / 'a.onnx', [('Nonsense\x1b[2J\n' * 1000, ['image'], 'y', {})], 3, UINT8, output='classes')
    with pytest.raises(ValueError, match='a.onnx cannot be opened: ') as error:
        Segmenter(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.onnx')
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises(ValueError, match='pipe.onnx: is no file, but a pipe, a socket or a device'):
        Segmenter(tmp_path / 'pipe.onnx')
    with pytest.raises(ValueError, match='folder.onnx: is a folder'):
        Segmenter(tmp_path / 'folder.onnx')


@pytest.mark.parametrize('duplicate', [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
                         ids=['copy', 'deepcopy', 'pickle'])
def test_segmenters_can_be_copied_and_pickled(exported, duplicate):
    segmenter = Segmenter(exported[0], device='cpu', batch_size=3, probabilities=True)
    same = duplicate(segmenter)
    assert (same.batch_size, same.backend.path, same.backend.device) == (3, str(exported[0]), 'cpu')
    for one, other in zip(segmenter([exported[1]] * 2), same([exported[1]] * 2)):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert duplicate(segmenter.backend).classes == segmenter.classes


def test_a_file_has_no_model_of_pytorch(exported):
    segmenter = Segmenter(exported[0])
    for name in ('model', 'cfg'):
        with pytest.raises(AttributeError, match=f'{exported[0]} is an ONNX file, which has no PyTorch model and no'):
            getattr(segmenter, name)


def test_files_and_settings_that_cannot_be_used_are_explained(exported, tmp_path, monkeypatch):
    (tmp_path / 'text.onnx').write_text('no graph')
    with pytest.raises(ValueError, match=f'{tmp_path}/text.onnx cannot be opened: '):
        Segmenter(tmp_path / 'text.onnx')
    with pytest.raises(ValueError, match=f'{tmp_path}/none.onnx: no such file'):
        Segmenter(tmp_path / 'none.onnx')
    with pytest.raises(ValueError, match='--device cuda:0 cannot be used here: this ONNX Runtime has .*CPUExecution'):
        Segmenter(exported[0], device='cuda:0')
    with pytest.raises(ValueError, match='leave --config, --amp, --tta and --compile out'):
        Segmenter(exported[0], tta=True)
    classes = with_metadata(exported, tmp_path / 'classes.onnx', output='classes')
    with pytest.raises(ValueError, match='export it with --output logits'):
        Segmenter(classes, probabilities=True)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ValueError, match='runs in ONNX Runtime, which cannot be imported .*: pip install onnxruntime'):
        Segmenter(exported[0])


def test_images_that_the_graph_cannot_take_are_named(exported, tmp_path):
    """A file for one size whose pipeline gives another."""
    fixed = tmp_path / 'fixed.onnx'
    export_onnx(TOY, str(exported[0].with_suffix('.pth')), str(fixed), [str(exported[1])], ExportSettings((64, 96)))
    wrong = with_metadata((fixed, ), tmp_path / 'wrong.onnx', pipeline='[]')
    failure, = infer(Segmenter(wrong), [str(exported[1])], str(tmp_path / 'out')).failures
    assert failure.startswith(f'{exported[1]}: ONNX Runtime: ')


def test_an_image_that_is_too_small_is_named(exported, tmp_path):
    small = tmp_path / 'small.png'
    Image.new('RGB', (40, 20)).save(small)
    small_file = with_metadata(exported, tmp_path / 'as_it_is.onnx', pipeline='[]')
    failure, = infer(Segmenter(small_file), [str(small)], str(tmp_path / 'out')).failures
    assert failure.startswith(f'{small}: an image of 20 x 40 pixels (H x W) is too small: most networks need at least')
