"""Grad-CAM and effective receptive fields."""
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from mmengine.model import revert_sync_batchnorm
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from PIL import Image
from torch import nn

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.analysis import features, visualize_features
from mmseg_inceptionnext.analysis.grad_cam import NotPredictedError, check_grad_cam, draw_cam, grad_cam
from mmseg_inceptionnext.analysis.receptive_field import ReceptiveField, middle_square, receptive_fields
from mmseg_inceptionnext.models import InceptionNeXt
from mmseg_inceptionnext.models.backbones.token_mixers import InceptionDWConv2d

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


def inception_mixer():
    """Of 8 channels 5 pass, one is convolved by 3 x 3, one by 1 x 11, one by 11 x 1."""
    return randomise(InceptionDWConv2d(8, branch_ratio=1 / 8)).double()


def test_the_field_of_one_inception_mixer_is_known_by_hand():
    first, mixer = nn.Conv2d(3, 8, 1).double(), inception_mixer()
    field, = receptive_fields(Net(first, mixer), torch.randn(2, 1, 3, 25, 31, dtype=torch.float64))
    expected = np.zeros((3, 25, 31))
    weights = first.weight[:, :, 0, 0].detach().numpy()  # 8 x 3
    square, wide, tall = (layer.weight[0, 0].detach().numpy() for layer in
                          (mixer.dwconv_hw, mixer.dwconv_w, mixer.dwconv_h))
    for color in range(3):
        expected[color, 12, 15] += weights[:5, color].sum()
        expected[color, 11:14, 14:17] += weights[5, color] * square
        expected[color, 12, 10:21] += weights[6, color] * wide[0]
        expected[color, 7:18, 15] += weights[7, color] * tall[:, 0]
    expected = np.abs(expected).sum(0)
    np.testing.assert_allclose(field.contribution, expected, rtol=1e-12, atol=1e-15)
    assert field.center == (12.5, 15.5) and field.square(1) == 11
    for share in (0.2, 0.5, 0.95):
        sides = [side for side in range(1, 13, 2) if
                 expected[12 - side // 2:13 + side // 2, 15 - side // 2:16 + side // 2].sum() >= share * expected.sum()]
        assert field.square(share) == sides[0]


def test_the_support_of_inceptionnext_is_known_by_hand():
    """Atto: two blocks with bands of 9 a stage see 8 pixels of the map to each side. Stage 1: 17 pixels of stride 4.
    Stage 2: 17 pixels of stride 8 are 34 of stride 4, which see 8 more to each side."""
    backbone = randomise(revert_sync_batchnorm(InceptionNeXt('atto', out_indices=(0, 1)))).double().eval()
    fields = receptive_fields(backbone, [torch.randn(1, 3, 256, 256, dtype=torch.float64)])
    for field, center, side in zip(fields, (130, 132), (17 * 4, (34 + 16) * 4)):
        assert field.center == (center, center)
        for axis in (0, 1):
            seen = np.flatnonzero(field.contribution.sum(axis))
            assert (seen[0], seen[-1] + 1) == (center - side // 2, center + side // 2)


def test_fields_are_means_over_inputs_of_absolute_gradients():
    class Squared(nn.Module):
        def forward(self, x):
            return x[:, :1, ::2, ::2], x**2

    inputs = torch.randn(3, 1, 3, 6, 8, dtype=torch.float64)
    first, second = receptive_fields(Squared(), inputs)
    expected = np.zeros((6, 8))
    expected[3, 4] = (2 * inputs[:, 0, :, 3, 4]).abs().sum(1).mean()
    np.testing.assert_allclose(second.contribution, expected, rtol=1e-12)
    assert first.contribution[2, 4] == 1 == first.contribution.sum() and first.center == (3, 5)


def test_a_field_of_zeros_has_no_square():
    with pytest.raises(ValueError, match='add up to 0, so there is no receptive field'):
        ReceptiveField(np.zeros((3, 3)), (1.5, 1.5)).square(0.5)


@pytest.mark.parametrize('size,side,expected', [
    ((70, 101), 512, (slice(3, 67), slice(18, 82))), ((600, 513), 512, (slice(44, 556), slice(0, 512)))])
def test_the_middle_of_an_image_is_cut_out(size, side, expected):
    image = torch.randn(1, 3, *size)
    torch.testing.assert_close(middle_square(image, side), image[(..., *expected)], rtol=0, atol=0)


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
    with pytest.raises(NotPredictedError):
        grad_cam(model, inputs, 3, 0)


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


def test_the_picture_blends_the_map_and_the_image():
    image = np.random.randint(0, 256, (240, 50, 3), np.uint8)
    cam = np.random.rand(240, 50).astype(np.float32)
    predicted = np.zeros((240, 50), bool)
    predicted[100:110, 20:40] = True
    picture = np.array(draw_cam(image, cam, predicted, 'road', 3))[:, :50]
    expected = np.round(0.45 * image + 0.55 * 255 * colormaps['turbo'](cam)[..., :3])
    outline = np.zeros((240, 50), bool)
    outline[[100, 109], 20:40] = outline[100:110, [20, 39]] = True
    assert (picture[outline] == 255).all()
    np.testing.assert_allclose(picture[~outline], expected[~outline], atol=1)


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
    monkeypatch.setattr(features, 'draw_cam', lambda *args: drawn.append(args) or Image.new('RGB', (9, 9)))
    visualize_features(segmenter, [path], str(tmp_path), stage=2)
    (shown, cam, predicted, name, stage), = drawn
    mask = segmenter(path).mask
    class_id = np.bincount(mask.ravel()).argmax()
    assert calls == [((1, 3, 300, 320), class_id, 1)] and name == segmenter.classes[class_id] and stage == 2
    np.testing.assert_array_equal(shown, image[..., ::-1])
    np.testing.assert_array_equal(predicted, mask == class_id)
    np.testing.assert_array_equal(cam, cv2.resize(ramp[:height, :width], image.shape[1::-1]))


@needs_grad_cam
def test_images_that_cannot_be_explained_are_named(segmenter, toy_root, tmp_path):
    good, bad = validation_image(toy_root), tmp_path / 'bad.jpg'
    bad.write_text('no image')
    present = np.unique(segmenter(good).mask)
    absent = segmenter.classes[np.setdiff1d(np.arange(150), present)[0]]
    result = visualize_features(segmenter, [good, str(bad)], str(tmp_path / 'out'), class_name=absent)
    assert not result.written and not result.table and len(result.failures) == 2
    names = ', '.join(segmenter(good).share())
    assert result.failures[0] == (f'{good}: no pixel is predicted as {absent}, so there is nothing to explain; '
                                  f'predicted are {names}')
    assert result.failures[1].startswith(f'{bad}: cannot be read as an image')


def test_what_does_not_exist_is_explained(segmenter, tmp_path):
    with pytest.raises(ValueError, match='--stage 5: the backbone gives the maps of 4 stages; choose 1 to 4'):
        visualize_features(segmenter, [], str(tmp_path / 'out'), stage=5)
    with pytest.raises(ValueError, match='--class lawn: the model does not know this class; its classes are wall, bui'):
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
    check_grad_cam(model)
    model.decode_head = nn.ModuleList()
    with pytest.raises(ValueError, match='models with one decode head .* that of this Linear is ModuleList'):
        check_grad_cam(model)
    model.decode_head = Head(in_channels=5, channels=5, num_classes=2, out_channels=1, threshold=0.5)
    with pytest.raises(ValueError, match='that of this Linear is Head with one channel'):
        check_grad_cam(model)


@needs_grad_cam
def test_the_command_line_with_images(checkpoint, segmenter, toy_root, tmp_path):
    name = next(iter(segmenter(validation_image(toy_root)).share()))
    out = tmp_path / 'out'
    result = run_tool('tools/visualize_features.py', TOY, checkpoint, toy_root / 'images/validation',
                      tmp_path / 'absent.jpg', '--out-dir', out, '--stage', '3', '--class', name, check=False)
    assert result.returncode == 1 and 'Grad-CAM failed for ' in result.stdout and 'Traceback' not in result.stdout
    assert f'{tmp_path}/absent.jpg: no such file' in result.stdout
    path = out / f'toy_validation_00000_stage3_{name.replace(" ", "-")}.jpg'
    assert str(path) in result.stdout and f'{out}/receptive_field.png' in result.stdout
    width, height = Image.open(validation_image(toy_root)).size
    picture = Image.open(path)
    assert picture.width > width and picture.height == max(height, 220)


def test_the_command_line_without_images(checkpoint, tmp_path):
    """Random inputs: the same table each time, with the numbers of the picture."""
    text = run_tool('tools/visualize_features.py', TOY, checkpoint, '--out-dir', tmp_path / 'out').stdout
    rows = re.findall(r'^ +(\d)  +(\d+) +(\d+) +(\d+)$', text, re.M)
    assert 'in pixels of an input of 512 x 512\nstage     20%   50%   95%\n' in text and len(rows) == 4
    model, _, _ = load_model(TOY, checkpoint)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 3, 512, 512, generator=generator) for _ in range(8)]
    expected = [[field.square(share) for share in (0.2, 0.5, 0.95)] for field in
                receptive_fields(model.backbone, inputs)]
    assert [[int(side) for side in row[1:]] for row in rows] == expected
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['receptive_field.png']


def test_the_command_line_runs_nothing_inside_a_checkpoint(checkpoint, tmp_path):
    poison(checkpoint, tmp_path / 'evil.pth', tmp_path / 'mark')
    result = run_tool('tools/visualize_features.py', TOY, tmp_path / 'evil.pth', '--out-dir', tmp_path, check=False)
    assert result.returncode == 1 and '--trust-checkpoint' in result.stdout and 'Traceback' not in result.stdout
    assert not (tmp_path / 'mark').exists()
