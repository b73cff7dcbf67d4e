"""What goes into a Segmenter, and that what comes out is what tools/test.py and MMSegmentation predict."""
import os
import threading

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from PIL import Image, ImageSequence

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import InputError

from utils import ROOT, TOY, load_model, mean_of_views, run_tool, save_checkpoint


@pytest.fixture
def paths(toy_root):
    return sorted((toy_root / 'images/validation').iterdir())


def test_equals_the_evaluation_bit_for_bit(checkpoint, segmenter, paths, toy_root, tmp_path):
    run_tool('tools/test.py', TOY, checkpoint, '--work-dir', tmp_path, '--out', tmp_path / 'out', '--cfg-options',
             f'data_root={toy_root}')
    for path, result in zip(paths, segmenter(paths)):
        assert len(np.unique(result.mask)) > 3
        np.testing.assert_array_equal(result.mask + 1, np.array(Image.open(tmp_path / f'out/{path.stem}.png')))
        np.testing.assert_array_equal(result.image, np.array(Image.open(path).convert('RGB')))


def test_all_kinds_of_input_are_the_same_image(segmenter, paths):
    expected = segmenter(str(paths[0]))
    rgb = cv2.imread(str(paths[0]))[..., ::-1]
    for image in (paths[0], rgb, np.asfortranarray(rgb), Image.fromarray(rgb), Image.open(paths[0])):
        result = segmenter(image)
        np.testing.assert_array_equal(result.mask, expected.mask)
        np.testing.assert_array_equal(result.image, expected.image)
    assert segmenter([]) == []


@pytest.mark.parametrize('make', [
    lambda rgb: Image.fromarray(rgb).convert('P', palette=Image.Palette.ADAPTIVE),
    lambda rgb: Image.fromarray(rgb).convert('L'),
    lambda rgb: Image.fromarray(np.dstack([rgb, rgb[..., :1]])),
    lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) << 8 | 17),
    lambda rgb: Image.fromarray(rgb[..., 0] > 100),
], ids=['palette', 'grey', 'RGBA', '16 bits', '1 bit'])
def test_unusual_images_are_the_same_from_memory_and_file(segmenter, paths, tmp_path, make):
    image = make(np.array(Image.open(paths[0]).convert('RGB')))
    image.save(tmp_path / 'a.png')
    expected = segmenter(tmp_path / 'a.png')
    for source in (image, Image.open(tmp_path / 'a.png')):
        result = segmenter(source)
        np.testing.assert_array_equal(result.image, expected.image)
        np.testing.assert_array_equal(result.mask, expected.mask)
    if image.mode == 'L':
        np.testing.assert_array_equal(segmenter(np.array(image)).mask, expected.mask)


def test_mode_i_holds_16_bits_whatever_its_values(segmenter):
    """As Pillow reads a 16-bit file; a dark one is not taken for one of 8 bits."""
    for top in (200, 65535):
        values = np.linspace(0, top, 64 * 96).astype(np.int32).reshape(64, 96)
        for image in (Image.fromarray(values), Image.fromarray(values.astype(np.uint16))):
            assert image.mode in ('I', 'I;16')
            np.testing.assert_array_equal(segmenter(image).image, np.repeat(values[..., None] >> 8, 3, axis=2))


@pytest.mark.parametrize('values,words', [
    (np.full((4, 4), 0.5, np.float32), r'mode F \(floating point\), whose range nothing tells: bring it'),
    (np.full((4, 4), 65536, np.int32), 'mode I with values from 65536 to 65536: allowed are 0 to 65535'),
    (np.full((4, 4), -1, np.int32), 'mode I with values from -1 to -1: allowed are 0 to 65535'),
])
def test_pil_images_whose_range_is_not_known_are_refused_as_their_files_are(segmenter, tmp_path, values, words):
    image = Image.fromarray(values)
    with pytest.raises(ValueError, match=words):
        segmenter(image)
    image.save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match='a.tif: cannot be read as an image'):
        segmenter(tmp_path / 'a.tif')


def test_orientation_is_respected(segmenter, paths, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    image = Image.open(paths[0])
    image.save(tmp_path / 'turned.jpg', exif=exif, quality=100, subsampling=0)
    height, width = segmenter(paths[0]).mask.shape
    for source in (tmp_path / 'turned.jpg', Image.open(tmp_path / 'turned.jpg')):
        result = segmenter(source)
        assert result.mask.shape == result.image.shape[:2] == (width, height)
        upright = np.rot90(result.image).astype(int)
        assert np.abs(upright - np.array(image)).mean() < 3


@pytest.mark.parametrize('image,error,words', [
    (np.zeros((4, 4, 3), np.float32), ValueError, r'shape \(4, 4, 3\) and float32: allowed are height x width x 3'),
    (np.zeros((4, 4, 4), np.uint8), ValueError, r'shape \(4, 4, 4\) and uint8: allowed'),
    (np.zeros((0, 4, 3), np.uint8), ValueError, 'at least one pixel'),
    ([torch.zeros(3, 4, 4)], TypeError, 'Tensor: allowed are the path of an image, a PIL image'),
    (['/no/such.jpg'], ValueError, '/no/such.jpg: no such file'),
])
def test_what_is_no_image_is_refused(segmenter, image, error, words):
    with pytest.raises(error, match=words):
        segmenter(image)


def test_iterables_are_taken_as_results_are(segmenter, paths):
    taken = []

    def frames():
        for i in range(50):
            taken.append(i)
            yield paths[i % 3]

    results = segmenter(frames())
    expected = segmenter(paths)
    for i in range(4):
        np.testing.assert_array_equal(next(results).mask, expected[i % 3].mask)
    assert len(taken) < 10
    results.close()
    assert threading.active_count() < 10


@pytest.mark.parametrize('count', [0, 1, 4, 6])
@pytest.mark.parametrize('batch_size', [1, 4])
def test_results_come_before_the_error_of_a_generator(checkpoint, paths, batch_size, count):
    def frames():
        for _ in range(count):
            yield np.zeros((32, 32, 3), np.uint8)
        raise KeyError('mine')

    results = []
    with pytest.raises(KeyError, match='mine'):
        for result in Segmenter(checkpoint, batch_size=batch_size)(frames()):
            results.append(result)
    assert len(results) == count


def test_pipes_are_not_waited_for(segmenter, tmp_path):
    os.mkfifo(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='a.png: is no file, but a pipe, a socket or a device'):
        segmenter(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='/dev/zero: is no file, but a pipe'):
        segmenter('/dev/zero')


def test_what_a_generator_fills_again_was_taken_before(segmenter, paths, tmp_path):
    """One array, or one PIL image that holds several frames, for all of them."""
    images = [np.array(Image.open(path).convert('RGB').resize((150, 110))) for path in paths]
    expected = [result.mask for result in segmenter(images)]

    def frames(memory):
        for image in images:
            memory[:] = image
            yield memory

    first, *others = map(Image.fromarray, images)
    first.save(tmp_path / 'film.tif', save_all=True, append_images=others)
    for source in (frames(np.empty_like(images[0])), ImageSequence.Iterator(Image.open(tmp_path / 'film.tif'))):
        results = list(segmenter(source))
        assert len(results) == len(images) > 2
        for image, result, mask in zip(images, results, expected):
            np.testing.assert_array_equal(result.image, image)
            np.testing.assert_array_equal(result.mask, mask)


def test_batches_give_the_same(checkpoint, segmenter, paths, monkeypatch):
    """Images of one size side by side, the others alone; what fails in a batch is tried one by one."""
    batched = Segmenter(checkpoint, batch_size=3)
    sizes, predict = [], batched.backend.predict

    def record(prepared):
        sizes.append(len(prepared))
        if len(prepared) > 2:
            raise torch.cuda.OutOfMemoryError('of the device')
        return predict(prepared)

    monkeypatch.setattr(batched.backend, 'predict', record)
    small = cv2.imread(str(paths[0]))[:64, :96]
    first = Image.open(paths[0]).size
    images = [paths[0], paths[0], small, '/no/such.jpg', small, small, small]
    found, outcomes = zip(*batched.outcomes(images))
    assert all(source is image for source, image in zip(found, images))
    assert first != (96, 64) and sizes == [2, 1, 3, 1, 1, 1]
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False] * 3 + [True] + [False] * 3
    for image, outcome in zip(images, outcomes):
        if not isinstance(outcome, Exception):
            assert (segmenter(image).mask == outcome.mask).mean() > 0.9999


def test_threads_share_a_segmenter(segmenter, paths):
    expected = [result.mask for result in segmenter(paths)]
    found = [None] * 4

    def run(i):
        found[i] = [result.mask for result in segmenter(paths)]

    threads = [threading.Thread(target=run, args=(i, )) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for masks in found:
        for mask, other in zip(masks, expected):
            np.testing.assert_array_equal(mask, other)


def test_views_are_averaged(checkpoint, paths):
    model, mean, std = load_model(TOY, checkpoint)
    result = Segmenter(checkpoint, tta=True, probabilities=True)(paths[0])
    sizes = [tuple(int(side * scale + 0.5) for side in Image.open(paths[0]).size) for scale in (0.75, 1.0, 1.25)]
    expected = mean_of_views(model, mean, std, paths[0], sizes, divisor=32)
    assert (result.mask == expected).mean() > 0.9999
    np.testing.assert_array_equal(result.probabilities.argmax(0), result.mask)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)


def test_stock_views_keep_no_probabilities(checkpoint, tmp_path):
    cfg = Config.fromfile(ROOT / TOY)
    cfg.tta_model.type = 'SegTTAModel'
    cfg.dump(tmp_path / 'stock.py')
    Segmenter(checkpoint, str(tmp_path / 'stock.py'), tta=True, probabilities=True)  # averaged by ours
    cfg.model.type = 'EncoderDecoder'
    cfg.dump(tmp_path / 'stock.py')
    with pytest.raises(InputError, match="tta_model=dict\\(type='RunningSumTTAModel'\\)"):
        Segmenter(checkpoint, str(tmp_path / 'stock.py'), tta=True, probabilities=True)


def test_one_channel_has_two_probabilities(toy_root, paths, tmp_path):
    cfg = Config.fromfile(ROOT / TOY)
    cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.4)
    cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True)
    metainfo = dict(classes=('back', 'front'), palette=[[0, 0, 0], [255, 255, 255]])
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(type='BaseSegDataset', metainfo=metainfo)
    cfg.dump(tmp_path / 'binary.py')
    checkpoint = save_checkpoint(tmp_path / 'binary.py', tmp_path / 'binary.pth')
    for tta in (False, True):
        result = Segmenter(checkpoint, tta=tta, probabilities=True)(paths[0])
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-6)
        np.testing.assert_array_equal(result.probabilities[1] > 0.4, result.mask == 1)
        assert 0 < result.mask.mean() < 1


def test_mixed_precision_is_close(checkpoint, segmenter, paths):
    results = Segmenter(checkpoint, amp='bf16', fuse_model=True)(paths)
    same = np.mean([(one.mask == other.mask).mean() for one, other in zip(results, segmenter(paths))])
    assert 0.7 < same < 1


@pytest.mark.parametrize('wrong,words', [
    (dict(amp='int8'), '--amp int8: allowed are fp16, bf16'), (dict(batch_size=0), '--batch-size 0: allowed is a'),
    (dict(batch_size='2'), "--batch-size '2': allowed is a whole number"), (dict(batch_size=2.), '--batch-size 2.0'),
    (dict(batch_size=None), '--batch-size None'), (dict(batch_size=True), '--batch-size True')])
def test_wrong_settings_are_explained(checkpoint, wrong, words):
    with pytest.raises(ValueError, match=words):
        Segmenter(checkpoint, **wrong)


@pytest.mark.parametrize('device', ['meta', 'xpu', 'hpu', 'mtia', 'vulkan', 'lazy', 'cuda:99', 'gpu', 'cpu:x', ' '])
def test_devices_that_cannot_compute_are_explained(checkpoint, device):
    if device == 'xpu' and hasattr(torch, 'xpu') and torch.xpu.is_available():
        pytest.skip('there is one')
    with pytest.raises(InputError, match=f'--device {device} cannot be used here: .*; cpu always can'):
        Segmenter(checkpoint, device=device)


def test_classes_that_the_checkpoint_does_not_name_come_from_its_config(checkpoint, segmenter, tmp_path):
    content = torch.load(checkpoint, weights_only=False)
    del content['meta']['dataset_meta']
    torch.save(content, tmp_path / 'a.pth')
    for trust in (False, True):
        found = Segmenter(str(tmp_path / 'a.pth'), trust_checkpoint=trust)
        assert (found.classes, found.palette) == (segmenter.classes, segmenter.palette)


def test_what_is_no_path_of_a_checkpoint_is_explained():
    with pytest.raises(TypeError, match='int as checkpoint: allowed is the path of a file'):
        Segmenter(5)


def test_mmsegmentations_inferencer_takes_our_configs(checkpoint, segmenter, paths):
    inferencer = MMSegInferencer(str(ROOT / TOY), str(checkpoint), device='cpu')
    predictions = inferencer([str(path) for path in paths])['predictions']
    for prediction, path in zip(predictions, paths):
        np.testing.assert_array_equal(prediction, segmenter(path).mask)
    prediction = inferencer(mmcv.imread(str(paths[0])))['predictions']
    np.testing.assert_array_equal(prediction, segmenter(paths[0]).mask)


@pytest.mark.parametrize('change,words', [
    (lambda cfg: cfg.model.update(test_cfg=dict(mode='slide')), 'model.test_cfg.crop_size is None'),
    (lambda cfg: cfg.model.update(test_cfg=dict(mode='hole')), "model.test_cfg.mode is 'hole'"),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline[1].update(typo=1), 'test pipeline of .* cannot be built.*typo'),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline[0].update(type='LoadImag'), 'cannot be built.*LoadImag'),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline.pop(), 'has no PackSegInputs')])
def test_settings_that_cannot_be_used_are_explained(checkpoint, tmp_path, change, words):
    cfg = Config.fromfile(ROOT / TOY)
    change(cfg)
    cfg.dump(tmp_path / 'own.py')
    with pytest.raises(InputError, match=words):
        Segmenter(checkpoint, str(tmp_path / 'own.py'))
