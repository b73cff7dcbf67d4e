"""Exported files against PyTorch, and what is said of those that cannot be had."""
import json
import runpy
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch.nn import functional as F

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.export import Agreement, ExportSettings, export_onnx, onnx_export
from mmseg_inceptionnext.export.images import find_images
from mmseg_inceptionnext.export.int8 import pixels_of, to_int8
from mmseg_inceptionnext.models import InceptionNeXt

from utils import ROOT, TOY, load_model, narrow, run_tool, save_checkpoint

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


def change(config, path, edit):
    """A config of ours, changed."""
    cfg = Config.fromfile(str(ROOT / config))
    cfg.model.backbone.pop('init_cfg', None)
    edit(cfg)
    cfg.dump(path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(TOY, tmp_path_factory.mktemp('checkpoint') / 'toy.pth')


@pytest.fixture
def images(toy_root):
    return [str(path) for path in sorted((toy_root / 'images/validation').iterdir())]


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('settings', [
    ExportSettings(), ExportSettings(output='classes'), *(pytest.param(other, marks=pytest.mark.slow) for other in (
        ExportSettings((96, 160)), ExportSettings((64, 96), 'classes'), ExportSettings(precision='float16')))],
    ids=['free', 'classes', 'fixed', 'fixed classes', 'half'])
def test_files_say_how_they_are_used(checkpoint, images, tmp_path, settings):
    agreement = export_onnx(str(ROOT / TOY), str(checkpoint), str(tmp_path / 'a.onnx'), images, settings)
    assert agreement.passed and agreement.images == 3, str(agreement)
    assert [path.name for path in tmp_path.iterdir()] == ['a.onnx']
    model = onnx.load(tmp_path / 'a.onnx')
    onnx.checker.check_model(model, full_check=True)
    meta = {entry.key: entry.value for entry in model.metadata_props}
    segmenter = Segmenter(checkpoint)
    assert tuple(json.loads(meta['classes'])) == segmenter.classes
    assert json.loads(meta['palette']) == segmenter.palette
    assert meta['input'] == 'uint8, RGB, N x 3 x H x W, from 0 to 255' and meta['output'] == settings.output
    assert json.loads(meta['mean']) == pytest.approx([123.675, 116.28, 103.53])
    assert json.loads(meta['std']) == pytest.approx([58.395, 57.12, 57.375])
    assert json.loads(meta['size']) == (list(settings.shape) if settings.shape else 'dynamic')
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert weights == {onnx.TensorProto.FLOAT16 if settings.precision == 'float16' else onnx.TensorProto.FLOAT}
    exported, same = Segmenter(tmp_path / 'a.onnx'), []
    for path in images:
        result, expected = exported(path), segmenter(path)
        assert result.mask.shape == expected.mask.shape and result.mask.dtype == np.uint8
        same.append((result.mask == expected.mask).ravel())
        np.testing.assert_array_equal(result.image, expected.image)
    share = np.concatenate(same).mean()
    if settings.shape is None and settings.output == 'logits':
        assert share > (0.99 if settings.precision == 'float16' else 0.9999) and agreement.as_checkpoint is None
    else:
        assert agreement.as_checkpoint == pytest.approx(share) and share < agreement.equal
        assert f'of the original images {100 * share:.2f} % of the pixels get the class that' in str(agreement)


def test_fixed_shapes_are_what_pytorch_predicts_of_the_resized_image(checkpoint, images, tmp_path):
    export_onnx(str(ROOT / TOY), str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings(shape=(96, 160)))
    model, mean, std = load_model(TOY, checkpoint)
    result = Segmenter(tmp_path / 'a.onnx')(images[0])
    image = cv2.resize(result.image, (160, 96), interpolation=cv2.INTER_LINEAR)
    x = (torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std
    with torch.no_grad():
        logits = F.interpolate(model(x[None]), (96, 160), mode='bilinear')
        expected = F.interpolate(logits, result.mask.shape, mode='bilinear').argmax(1)[0].numpy()
    assert (result.mask == expected).mean() > 0.9999


def test_one_channel(images, tmp_path):
    def edit(cfg):
        cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.4)
        cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True)
        cfg.test_dataloader.dataset.update(
            type='BaseSegDataset', metainfo=dict(classes=('back', 'front'), palette=[[0, 0, 0], [255, 255, 255]]))

    config = change(TOY, tmp_path / 'binary.py', edit)
    checkpoint = save_checkpoint(config, tmp_path / 'binary.pth')
    for output in ('logits', 'classes'):
        agreement = export_onnx(
            config, str(checkpoint), str(tmp_path / f'{output}.onnx'), images, ExportSettings(output=output))
        assert agreement.passed and agreement.equal > 0.9999, str(agreement)
    result = Segmenter(tmp_path / 'logits.onnx', probabilities=True)(images[0])
    expected = Segmenter(checkpoint, probabilities=True)(images[0])
    np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-5)
    assert 0 < result.mask.mean() < 1


@pytest.mark.parametrize('edit,settings,words', [
    (lambda cfg: cfg.model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32)), {},
     r"predicts by sliding windows.* model = dict\(test_cfg=dict\(mode='whole'\)\)"),
    (lambda cfg: cfg.model.data_preprocessor.update(test_cfg=dict(size_divisor=32)), {}, 'pads in its test_cfg'),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomRotate', prob=0., degree=3)), {},
     "has {.*'RandomRotate'}, which is not exported: give --shape"),
    (None, dict(shape=(16, 64)), '--shape 16 64: each side needs at least 32 pixels'),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline[0].update(color_type='color_ignore_orientation'),
     dict(shape=(64, 96)), "loads images with {'color_type': 'color_ignore_orientation'}, which is not exported"),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline[0].update(to_float32=True, imdecode_backend='pillow'), {},
     "loads images with {'to_float32': True, 'imdecode_backend': 'pillow'}.*begins with dict.type='LoadImageFromFile'"),
    (None, dict(precision='int4'), 'precision int4: allowed are float32, float16, int8'),
    (None, dict(precision='int8'), 'no image to measure the ranges for int8 on; give some behind --int8'),
    (None, dict(out='a.pth'), '--out .*a.pth: allowed is a file that ends in .onnx'),
    (None, dict(images=[]), 'no image to compare on; give some by --images'),
])
def test_what_cannot_be_exported_is_explained(checkpoint, images, tmp_path, edit, settings, words):
    config = change(TOY, tmp_path / 'changed.py', edit) if edit else str(ROOT / TOY)
    out, images = settings.pop('out', 'a.onnx'), settings.pop('images', images)
    with pytest.raises(ValueError, match=words):
        export_onnx(config, str(checkpoint), str(tmp_path / out), images, ExportSettings(**settings))
    assert not list(tmp_path.glob('**/*.onnx')) and not list(tmp_path.glob('.export*'))


@pytest.mark.parametrize('output', ['logits', 'classes'])
def test_logits_that_are_not_finite_are_not_exported(checkpoint, images, tmp_path, monkeypatch, output):
    """Of the checkpoint, or of the file only, as of float16 that is too narrow."""
    def edit(cfg):
        cfg.model.data_preprocessor.std = [1e-38] * 3

    config = change(TOY, tmp_path / 'changed.py', edit)
    with pytest.raises(ValueError, match=f'{images[0]}: the logits of the checkpoint are NaN or infinite'):
        export_onnx(config, str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings(output=output))
    monkeypatch.setattr(onnx_export, 'to_half', lambda path: change_weights(
        path, 'conv_seg.weight', lambda values: np.full_like(values, 3e38)))
    with pytest.raises(ValueError, match=f'{images[0]}: the float16 file was not written: .* logits that are NaN'):
        export_onnx(str(ROOT / TOY), str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings(
            output=output, precision='float16'))
    assert not list(tmp_path.glob('**/*.onnx')) and not list(tmp_path.glob('.export*'))


def change_weights(path, name, change):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(name):
            values = change(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize('agreement,passed', [
    (Agreement(9e-5, 0.9991, 'float32', 1), True), (Agreement(2e-4, 1., 'float32', 1), False),
    (Agreement(1e-6, 0.998, 'float32', 1), False), (Agreement(None, 0.9991, 'float32', 1), True),
    (Agreement(None, 0.9, 'float32', 1), False), (Agreement(2e-2, 0.991, 'float16', 1), True),
    (Agreement(float('nan'), 1., 'float32', 1), False)])
def test_the_tolerances(agreement, passed):
    assert agreement.passed == passed


def test_the_tool(checkpoint, images, tmp_path, monkeypatch):
    """Prints the agreement; exit code 1 where it is too small, here since a file was tampered with on the way."""
    out = tmp_path / 'a.onnx'
    command = ['tools/export_onnx.py', TOY, checkpoint, '--out', out, '--images', images[0]]
    text = run_tool(*command).stdout
    assert f'{out}: float32 against PyTorch, 1 image: largest error of the logits' in text
    assert 'have the same class (allowed: 1e-04 and 99.9 %)' in text
    written, finish = out.stat().st_mtime_ns, onnx_export.finish

    def tamper(path, metadata):
        change_weights(path, 'conv_seg.bias', lambda values: values * 9)
        finish(path, metadata)

    monkeypatch.setattr(onnx_export, 'finish', tamper)
    monkeypatch.setattr(sys, 'argv', list(map(str, command)))
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match='was not written, since it differs from PyTorch by more'):
        runpy.run_path('tools/export_onnx.py', run_name='__main__')
    assert out.stat().st_mtime_ns == written


def test_an_image_that_is_too_small_is_named(monkeypatch):
    prepared = SimpleNamespace(data=dict(img=np.zeros((20, 40, 3), np.uint8)))
    segmenter = SimpleNamespace(prepare=lambda path: prepared, model=SimpleNamespace(backbone=InceptionNeXt('atto')))
    with pytest.raises(ValueError, match='^s.png: an image of 20 x 40 pixels .* too small: each side .* at least 32'):
        pixels_of(segmenter, 's.png')

    def measure(model, output, reader, **settings):
        reader.set_range(0, len(reader))
        reader.get_next()

    monkeypatch.setattr('onnxruntime.quantization.quantize_static', measure)
    with pytest.raises(ValueError, match='^s.png: an image of 20 x 40 pixels'):
        to_int8('a.onnx', segmenter, ['s.png'])
    segmenter.model.backbone = object()  # another backbone, which may take it
    assert pixels_of(segmenter, 's.png').shape == (1, 3, 20, 40)


@pytest.mark.slow
def test_int8(images, tmp_path, monkeypatch):
    """Measured on images of several sizes: the convolutions alone, with weights by channel."""
    config = change(TOY, tmp_path / 'narrow.py', lambda cfg: narrow(cfg.model))
    checkpoint, out = save_checkpoint(config, tmp_path / 'narrow.pth'), tmp_path / 'a.onnx'
    cv2.imwrite(str(tmp_path / 'b.png'), cv2.imread(images[0])[:96])
    monkeypatch.setattr(sys, 'argv', ['', config, str(checkpoint), '--out', str(out), '--images', images[0], '--int8',
                                      *images[1:], str(tmp_path / 'b.png')])
    main = runpy.run_path(str(ROOT / 'tools/export_onnx.py'))['main']
    with pytest.raises(SystemExit, match='differs from PyTorch by more than is allowed'):
        main()  # random weights are no model that bears it
    monkeypatch.setitem(onnx_export.TOLERANCES, 'int8', (0.5, 0.9))
    main()
    graph = onnx.load(out).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == 'Conv']
    for conv in convs:
        weight, scale = (weights[name] for name in made_by[conv.input[1]].input[:2])
        assert weight.data_type == onnx.TensorProto.INT8 and list(scale.dims) == list(weight.dims[:1])
    assert len(convs) > 70 and Segmenter(out)(images[0]).mask.shape == cv2.imread(images[0]).shape[:2]


def test_loading_steps_that_give_the_same_pixels_are_exported(checkpoint, images, tmp_path):
    config = change(TOY, tmp_path / 'same.py', lambda cfg: cfg.test_dataloader.dataset.pipeline[0].update(
        color_type='color', backend_args=None, ignore_empty=True))
    assert export_onnx(config, str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings()).passed


def test_without_a_test_set_scenes_are_drawn(checkpoint, tmp_path):
    config = change(TOY, tmp_path / 'elsewhere.py', lambda cfg: cfg.test_dataloader.dataset.update(data_root='/none'))
    with find_images(None, config) as (images, source):
        assert len(images) == 5
        assert export_onnx(config, str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings((64, 96))).passed
    assert 'drawn scenes, since the test set of the config cannot be read (' in source and '/none' in source


def test_the_file_needs_onnx_runtime_alone(checkpoint, images, tmp_path):
    """In a process without PyTorch and without this package."""
    export_onnx(str(ROOT / TOY), str(checkpoint), str(tmp_path / 'a.onnx'), images, ExportSettings(output='classes'))
    program = ('import sys; sys.modules.update(torch=None, mmseg_inceptionnext=None, mmcv=None)\n'
               'import json, numpy as np, onnxruntime; from PIL import Image\n'
               f'session = onnxruntime.InferenceSession("{tmp_path}/a.onnx", providers=["CPUExecutionProvider"])\n'
               'meta = session.get_modelmeta().custom_metadata_map\n'
               f'image = Image.open("{images[0]}").convert("RGB").resize((192, 128))\n'
               'pixels = np.asarray(image).transpose(2, 0, 1)[None]\n'
               'mask, = session.run(None, {"image": pixels})\n'
               'print(json.loads(meta["classes"])[np.bincount(mask.ravel()).argmax()], mask.shape)')
    result = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, text=True, capture_output=True, check=True)
    name, _, shape = result.stdout.strip().partition(' (')
    assert shape == '1, 128, 192)' and name in Segmenter(checkpoint).classes


@pytest.mark.slow
def test_openvino_reads_the_file(checkpoint, images, tmp_path):
    """In a process of its own: its threads and PyTorch's are not to meet."""
    pytest.importorskip('openvino')
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 128), np.uint8)
    np.save(tmp_path / 'image.npy', image)
    for settings in (ExportSettings(), ExportSettings(shape=(96, 128), output='classes')):
        export_onnx(str(ROOT / TOY), str(checkpoint), str(tmp_path / 'a.onnx'), images, settings)
        program = ('import numpy, openvino\n'
                   'model = openvino.Core().compile_model("a.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})\n'
                   'numpy.save("result.npy", model(dict(image=numpy.load("image.npy")))[model.output(0)])')
        subprocess.run([sys.executable, '-c', program], cwd=tmp_path, check=True, timeout=300)
        result = np.load(tmp_path / 'result.npy')
        expected, = session(tmp_path / 'a.onnx').run(None, dict(image=image))
        if settings.output == 'logits':
            assert np.abs(result - expected).max() < 1e-3 * np.abs(expected).max()
        else:
            assert (result == expected).mean() > 0.99
