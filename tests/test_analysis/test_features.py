"""Grad-CAM."""
import sys

import cv2
import numpy as np
import pytest
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from PIL import Image
from torch import nn

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.analysis import features, visualize_features
from mmseg_inceptionnext.analysis.features import check_grad_cam, draw_cam, grad_cam

from utils import ROOT, TOY, load_model, poison, randomise, run_tool, save_checkpoint

needs_grad_cam = pytest.mark.skipif(
    __import__('importlib').util.find_spec('pytorch_grad_cam') is None, reason='needs the library grad-cam')


class Net(nn.Module):
    """A backbone with one output."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x),


class Head(BaseDecodeHead):
    def forward(self, inputs):
        return self.conv_seg(inputs[0])


class Linear(nn.Module):
    """A segmentor of two linear layers."""
    with_neck = False

    def __init__(self):
        super().__init__()
        self.backbone = Net(nn.Conv2d(3, 5, 3, padding=1))
        self.decode_head = Head(in_channels=5, channels=5, num_classes=4)


@needs_grad_cam
def test_grad_cam_of_a_linear_model_is_known_by_hand():
    model = randomise(Linear()).eval()
    inputs = torch.randn(1, 3, 9, 12)
    maps = model.backbone(inputs)[0][0].detach().numpy()
    weights = model.decode_head.conv_seg.weight[:, :, 0, 0].detach().numpy()
    logits = np.einsum('ck,khw->chw', weights, maps) + model.decode_head.conv_seg.bias.detach().numpy()[:, None, None]
    predicted = np.bincount(logits.argmax(0).ravel(), minlength=4)
    class_id = predicted.argmax()
    # The mean of a channel's gradient is the class's weight, times the share of the pixels that are predicted as it.
    cam = np.maximum(np.einsum('k,khw->hw', weights[class_id] * predicted[class_id] / (9 * 12), maps), 0)
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    assert 0.1 < (cam > 0).mean() < 0.9
    np.testing.assert_allclose(grad_cam(model, inputs, class_id, 0), cam, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        model.decode_head.conv_seg.bias[3] -= 1000
    assert grad_cam(model, inputs, 3, 0) is None


@needs_grad_cam
@pytest.mark.parametrize('stage', range(4))
def test_grad_cam_of_a_stage_equals_plain_autograd(tmp_path, stage):
    model, mean, std = load_model(TOY, save_checkpoint(TOY, tmp_path / 'random.pth'))
    inputs = torch.randn(1, 3, 96, 128)
    maps = list(model.backbone(inputs))
    assert len(maps) == 4
    logits = model.decode_head(model.neck(maps))[0]
    class_id = int(logits.argmax(0).flatten().bincount().argmax())
    score = (logits[class_id] * (logits.argmax(0) == class_id)).sum()
    gradient, = torch.autograd.grad(score, maps[stage])
    cam = (gradient.mean((2, 3), keepdim=True) * maps[stage]).sum(1)[0].clamp(min=0).detach().numpy()
    cam = cv2.resize((cam - cam.min()) / (cam.max() - cam.min()), (128, 96))
    np.testing.assert_allclose(grad_cam(model, inputs, class_id, stage), (cam - cam.min()) / (cam.max() - cam.min()),
                               atol=1e-4)


def test_the_picture_blends_the_map_and_the_image(tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path: figures.append((figure, path)))
    image = np.random.randint(0, 256, (240, 50, 3), np.uint8)
    cam = np.random.rand(240, 50).astype(np.float32)
    predicted = np.zeros((240, 50), bool)
    predicted[100:110, 20:40] = True
    draw_cam(image, cam, predicted, 'road', 'a.jpg')
    (figure, path), = figures
    axes = figure.axes[0]
    below, above = axes.images
    np.testing.assert_array_equal(below.get_array(), image)
    np.testing.assert_array_equal(above.get_array(), cam)
    assert above.get_alpha() == 0.55 and above.get_clim() == (0, 1) and path == 'a.jpg'
    outline = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert outline.min(0).tolist() == [19.5, 99.5] and outline.max(0).tolist() == [39.5, 109.5]
    assert axes.get_title() == 'road\n(white line: predicted, 1.7 %)'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(TOY, tmp_path_factory.mktemp('checkpoint') / 'random.pth')


@pytest.fixture
def segmenter(checkpoint):
    return Segmenter(str(checkpoint), str(ROOT / TOY))


def validation_image(toy_root):
    return str(toy_root / 'images/validation/toy_validation_00000.jpg')


def test_the_input_is_that_of_the_test_pipeline(segmenter, toy_root):
    inputs, sample = features.network_input(segmenter, validation_image(toy_root))
    image = cv2.imread(validation_image(toy_root))
    height, width = (-(-side // 32) * 32 for side in image.shape[:2])
    image = cv2.resize(image, (width, height))[..., ::-1]
    expected = (image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0), expected, atol=1e-5)


@needs_grad_cam
def test_the_map_is_brought_back_to_the_size_of_the_image(segmenter, toy_root, tmp_path, monkeypatch):
    """The padding is cut off first."""
    settings = segmenter.cfg.model.data_preprocessor
    segmenter.model.data_preprocessor = MODELS.build(dict(settings, test_cfg=dict(size=(300, 320))))
    path = validation_image(toy_root)
    image = cv2.imread(path)
    height, width = (-(-side // 32) * 32 for side in image.shape[:2])
    ramp = np.random.rand(300, 320).astype(np.float32)
    calls, drawn = [], []
    monkeypatch.setattr(features, 'grad_cam', lambda model, inputs, class_id, stage: calls.append(
        (inputs.shape, class_id, stage)) or ramp)
    monkeypatch.setattr(features, 'draw_cam', lambda *args: drawn.append(args))
    written, _ = visualize_features(segmenter, [path], str(tmp_path), stage=2)
    (shown, cam, predicted, title, picture), = drawn
    mask = segmenter(path).mask
    class_id = np.bincount(mask.ravel()).argmax()
    assert calls == [((1, 3, 300, 320), class_id, 1)] and written == [picture]
    assert title == f'Grad-CAM of stage 2 for the class {segmenter.classes[class_id]}'
    np.testing.assert_array_equal(shown, image[..., ::-1])
    np.testing.assert_array_equal(predicted, mask == class_id)
    np.testing.assert_array_equal(cam, cv2.resize(ramp[:height, :width], image.shape[1::-1]))


@needs_grad_cam
def test_images_that_cannot_be_explained_are_named(segmenter, toy_root, tmp_path):
    good, bad = validation_image(toy_root), tmp_path / 'bad.jpg'
    bad.write_text('no image')
    present = np.unique(segmenter(good).mask)
    absent = segmenter.classes[np.setdiff1d(np.arange(150), present)[0]]
    written, failures = visualize_features(segmenter, [good, str(bad)], str(tmp_path / 'out'), class_name=absent)
    names = ', '.join(segmenter(good).share())
    assert not written and len(failures) == 2 and not (tmp_path / 'out').exists()
    assert failures[0].startswith(f'{good}: no pixel is predicted as {absent}') and failures[0].endswith(names)
    assert failures[1].startswith(f'{bad}: cannot be read as an image')


@needs_grad_cam
def test_what_does_not_exist_is_explained(segmenter, tmp_path):
    with pytest.raises(ValueError, match='--stage 5: .* 4 stages'):
        visualize_features(segmenter, [], str(tmp_path / 'out'), stage=5)
    with pytest.raises(ValueError, match='--class lawn: .* wall, building'):
        visualize_features(segmenter, [], str(tmp_path / 'out'), class_name='lawn')
    assert not (tmp_path / 'out').exists()


def test_a_missing_library_and_other_models_are_explained(segmenter, toy_root, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setitem(sys.modules, 'pytorch_grad_cam', None)
        with pytest.raises(ValueError, match='^Grad-CAM needs the library grad-cam: pip install grad-cam'):
            visualize_features(segmenter, [validation_image(toy_root)], str(tmp_path))
    if 'pytorch_grad_cam' not in sys.modules:
        monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', sys)
    model = Linear()
    check_grad_cam(model, 1)
    for head in (nn.ModuleList(), Head(in_channels=5, channels=5, num_classes=2, out_channels=1, threshold=0.5)):
        model.decode_head = head
        with pytest.raises(ValueError, match=f'a channel for each class; that of this Linear is {type(head).__name__}'):
            check_grad_cam(model, 1)


@needs_grad_cam
def test_the_command_line_with_images(checkpoint, segmenter, toy_root, tmp_path):
    name = next(iter(segmenter(validation_image(toy_root)).share()))
    out = tmp_path / 'out'
    result = run_tool('tools/visualize_features.py', TOY, checkpoint, toy_root / 'images/validation',
                      tmp_path / 'absent.jpg', '--out-dir', out, '--stage', '3', '--class', name, check=False)
    assert result.returncode == 1 and 'Grad-CAM failed for ' in result.stdout and 'Traceback' not in result.stdout
    assert f'{tmp_path}/absent.jpg: no such file' in result.stdout
    path = out / f'toy_validation_00000_stage3_{name.replace(" ", "-")}.jpg'
    assert str(path) in result.stdout and len(list(out.iterdir())) <= 3
    width, height = Image.open(validation_image(toy_root)).size
    picture = Image.open(path)
    assert picture.width > width and picture.height > height


def test_the_command_line_runs_nothing_inside_a_checkpoint(checkpoint, tmp_path):
    poison(checkpoint, tmp_path / 'evil.pth', tmp_path / 'mark')
    result = run_tool('tools/visualize_features.py', TOY, tmp_path / 'evil.pth', tmp_path, '--out-dir', tmp_path,
                      check=False)
    assert result.returncode == 1 and '--trust-checkpoint' in result.stdout and 'Traceback' not in result.stdout
    assert not (tmp_path / 'mark').exists()
