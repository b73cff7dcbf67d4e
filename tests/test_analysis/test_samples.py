"""Pictures of samples as they enter the network."""
import cv2
import numpy as np
import pytest
from mmengine.runner import Runner
from PIL import Image

from mmseg_inceptionnext.analysis import draw_samples, read_samples
from mmseg_inceptionnext.analysis.samples import GAP
from mmseg_inceptionnext.errors import ConfigError

from utils import ROOT, TOY, run_tool, short_config

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # ImageNet's, RGB


def seeded_config(toy_root, work_dir, seed=7, **options):
    """The scenes are made so small that most crops are padded."""
    cfg = short_config(toy_root, work_dir, **options)
    cfg.randomness = dict(seed=seed)
    cfg.train_dataloader.dataset.pipeline[3].update(ratio_range=(0.3, 0.7))
    return cfg


def batches_of_the_runner(cfg, split):
    """Pairs of normalised input, 3 x H x W, and data sample, as the runner gives them to the model."""
    cfg.visualizer.name = cfg.work_dir
    runner = Runner.from_cfg(cfg)
    if split == 'train':
        dataloader = runner.build_train_loop(cfg.train_cfg).dataloader
    else:
        dataloader = runner.build_val_loop(cfg.val_cfg).dataloader
    for batch in dataloader:
        data = runner.model.data_preprocessor(batch, split == 'train')
        yield from zip(data['inputs'].numpy(), data['data_samples'])


@pytest.mark.parametrize('split,num', [pytest.param('train', 8, marks=pytest.mark.slow), ('val', 3)])
def test_pictures_equal_what_the_runner_gives_to_the_model(toy_root, tmp_path, split, num):
    """Eight samples are more than the data set and the batch hold; the validation set ends after three."""
    paths = draw_samples(seeded_config(toy_root, tmp_path), split, 8, str(tmp_path / 'out'))
    expected = batches_of_the_runner(seeded_config(toy_root, tmp_path / 'run'), split)
    assert len(paths) == num
    padded = ignored = 0
    for i, (path, (inputs, sample)) in enumerate(zip(paths, expected)):
        stem = sample.img_path.rpartition('/')[2].partition('.')[0]
        assert path == f'{tmp_path}/out/{i:03d}_{stem}.png'
        picture = np.array(Image.open(path)).astype(int)
        height, width = inputs.shape[1:]
        image = inputs.transpose(1, 2, 0) * STD + MEAN
        np.testing.assert_allclose(picture[:height, :width], image, atol=0.501)
        if split == 'val':  # the pipeline only resizes
            file = cv2.resize(cv2.imread(sample.img_path), (width, height))
            np.testing.assert_array_equal(picture[:height, :width], file[..., ::-1])
        label = sample.gt_sem_seg.data[0].numpy()
        if label.shape != (height, width):
            label = cv2.resize(label.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        palette = np.array([*sample_palette(), *[[0, 0, 0]] * 106])
        colors = np.round(0.5 * np.round(image) + 0.5 * palette[label])
        start = width + GAP
        painted = picture[:height, start:start + width]
        valid = label != 255
        np.testing.assert_allclose(painted[valid], colors[valid], atol=1)
        stripes = (painted[~valid] == 255).all(1)
        np.testing.assert_allclose(painted[~valid][~stripes], colors[~valid][~stripes], atol=1)
        assert stripes.any() == (~valid).any() and stripes.mean() < 0.5 or not len(stripes)
        padded += sample.get('padding_size', (0, 0, 0, 0))[1] > 0
        ignored += len(stripes)
    assert ignored > 0 and (padded > 1 or split == 'val')


def sample_palette():
    from mmseg.utils import ade_palette
    return ade_palette()


def images(cfg, num=6):
    return np.stack([sample.image for _, sample in zip(range(num), read_samples(cfg))])


def test_a_seed_repeats_the_samples(toy_root, tmp_path):
    first = images(seeded_config(toy_root, tmp_path))
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(images(seeded_config(toy_root, tmp_path)), first)
    assert (images(seeded_config(toy_root, tmp_path, seed=8)) != first).mean() > 0.5
    workers = seeded_config(toy_root, tmp_path)
    workers.train_dataloader.num_workers = 2
    np.testing.assert_array_equal(images(workers), first)
    unseeded = [seeded_config(toy_root, tmp_path, seed=None) for _ in range(2)]
    assert (images(unseeded[0]) != images(unseeded[1])).any()


@pytest.mark.parametrize('settings', [
    dict(bgr_to_rgb=False, mean=MEAN[::-1], std=STD[::-1]),  # the network sees BGR
    dict(mean=None, std=None),
])
def test_other_preprocessing_gives_the_same_picture(toy_root, tmp_path, settings):
    def config(**options):
        cfg = seeded_config(toy_root, tmp_path)
        cfg.train_dataloader.dataset.pipeline[3].update(ratio_range=(1, 1))  # no padding, whose colour is the mean
        cfg.model.data_preprocessor.update(options)
        return cfg
    np.testing.assert_array_equal(images(config(**settings)), images(config()))


def test_labels_of_padded_test_images_are_padded_too(toy_root, tmp_path):
    cfg = seeded_config(toy_root, tmp_path)
    cfg.model.data_preprocessor.test_cfg = dict(size=(300, 320))
    sample = next(read_samples(cfg, 'val'))
    size = Image.open(sample.path).size
    assert sample.image.shape == (300, 320, 3) and sample.label.shape == (300, 320)
    height, width = (-(-side // 32) * 32 for side in size[::-1])
    assert (sample.image[height:] == np.round(MEAN)).all() and (sample.image[:, width:] == np.round(MEAN)).all()
    assert (sample.label[height:] == 150).all() and (sample.label[:, width:] == 150).all()
    label = np.array(Image.open(sample.path.replace('images', 'annotations').replace('.jpg', '.png')))
    label = cv2.resize(label - np.uint8(1), (width, height), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(sample.label[:height, :width], np.where(label == 255, 150, label))


def test_images_without_labels_are_shown_alone(toy_root, tmp_path):
    cfg = seeded_config(toy_root, tmp_path)
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [step for step in pipeline if step.type != 'LoadAnnotations']
    path, = draw_samples(cfg, 'test', 1, str(tmp_path / 'out'))
    assert Image.open(path).size == (288, 224)


@pytest.mark.parametrize('change,words', [
    (dict(train_dataloader=None), 'the config has no train_dataloader; choose another one with --split'),
    (dict(data_preprocessor=None, model=dict()), 'data_preprocessor .* cannot be built'),
    (dict(model=dict(data_preprocessor=dict(type='Absent'))), 'data_preprocessor .* cannot be built: .*Absent'),
])
def test_configs_that_do_not_serve_are_explained(toy_root, tmp_path, change, words):
    cfg = seeded_config(toy_root, tmp_path)
    for key, value in change.items():
        cfg[key] = value
    with pytest.raises(ValueError, match=words):
        next(read_samples(cfg))


@pytest.mark.parametrize('change,words', [
    (lambda loader: loader.update(batch_size='x'), 'train_dataloader cannot be used: .*x'),
    (lambda loader: loader.sampler.update(shuffel=True), 'train_dataloader cannot be used: .*shuffel'),
    (lambda loader: loader.sampler.update(type='InfinitSampler'), 'train_dataloader cannot be used: .*InfinitSampler'),
    (lambda loader: loader.dataset.pipeline[0].update(typo=1), 'train_dataloader cannot be used: .*typo'),
    (lambda loader: loader.dataset.pipeline[0].update(type='Lod'), 'train_dataloader cannot be used: .*Lod'),
    (lambda loader: loader.dataset.update(pipeline=[]), 'train_dataloader gives no input .*PackSegInputs')])
def test_a_loader_that_cannot_be_used_is_explained(toy_root, tmp_path, change, words):
    cfg = seeded_config(toy_root, tmp_path)
    change(cfg.train_dataloader)
    with pytest.raises(ConfigError, match=words):
        next(read_samples(cfg))


def test_other_labels_and_channels_are_explained(toy_root, tmp_path):
    cfg = seeded_config(toy_root, tmp_path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [step for step in pipeline if step.type != 'CheckLabels']
    cfg.train_dataloader.dataset.update(type='FolderDataset', metainfo=dict(classes=('wall', 'building')))
    with pytest.raises(ValueError, match=r'\.png: the label values .* are out of range: allowed are 0 to 1'):
        next(read_samples(cfg))
    cfg = seeded_config(toy_root, tmp_path)
    cfg.train_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile', color_type='grayscale')
    cfg.train_dataloader.dataset.pipeline.pop(-2)  # PhotoMetricDistortion wants colours
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', size=(128, 128))
    with pytest.raises(ValueError, match="the network's input has 1 channels; only images with three"):
        next(read_samples(cfg))


@pytest.mark.slow
def test_the_command_line(toy_root, tmp_path):
    arguments = ['tools/visualize_dataset.py', TOY, '--num', '2', '--out-dir', tmp_path / 'out', '--cfg-options',
                 'randomness.seed=3']
    text = run_tool(*arguments, f'data_root={toy_root}').stdout
    written = sorted((tmp_path / 'out').iterdir())
    assert len(written) == 2 and text.strip().splitlines()[-2:] == [str(path) for path in written]
    cfg = short_config(toy_root, tmp_path)
    cfg.randomness = dict(seed=3)
    sample = next(read_samples(cfg))
    np.testing.assert_array_equal(np.array(Image.open(written[0]))[:128, :128], sample.image)
    result = run_tool(*arguments, f'data_root={tmp_path}', check=False)
    assert result.returncode == 1 and 'is not a folder' in result.stdout and 'Traceback' not in result.stdout
    broken = tmp_path / 'broken'
    (broken / 'images/training').mkdir(parents=True)
    (broken / 'annotations/training').mkdir(parents=True)
    (broken / 'images/training/a.jpg').write_bytes(b'no image')
    result = run_tool(*arguments, f'data_root={broken}', check=False)
    assert result.returncode == 1 and 'training/a.jpg: is no image' in result.stdout
    assert 'Traceback' not in result.stdout
    result = run_tool('tools/visualize_dataset.py', ROOT / TOY, '--num', '0', '--out-dir', tmp_path, check=False)
    assert result.returncode == 2 and '--num 0: give 1 or more' in result.stdout
