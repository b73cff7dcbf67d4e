"""Test protocols: the views they make, and what is predicted from them; folders without labels."""
import shutil

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_inceptionnext.apis import evaluate
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import BrokenSampleError, ConfigError
from mmseg_inceptionnext.evaluation import apply_protocol
from mmseg_inceptionnext.evaluation.protocol import PROTOCOLS
from mmseg_inceptionnext.parts import find_datasets

from utils import ROOT, TOY, load_model, mean_of_views, narrow, save_checkpoint

UPERNET = 'configs/upernet_inceptionnext_t_ade20k.py'
FPN = 'configs/fpn_inceptionnext_t_ade20k.py'
PAPER_SCALES = [(1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)]
PAPER_SIZES = {  # config, width and height of the image: height and width of the six scales
    (UPERNET, 683, 512): [(256, 342), (384, 512), (512, 683), (640, 854), (768, 1025), (896, 1195)],
    (UPERNET, 500, 364): [(256, 352), (384, 527), (512, 703), (640, 879), (768, 1055), (896, 1231)],
    (UPERNET, 2000, 300): [(154, 1024), (230, 1536), (307, 2048), (384, 2560), (461, 3072), (538, 3584)],
    (FPN, 683, 512): [(256, 352), (384, 512), (512, 704), (640, 864), (768, 1056), (896, 1216)],
    (FPN, 500, 364): [(256, 352), (384, 544), (512, 704), (640, 896), (768, 1056), (896, 1248)],
}


def views_of(cfg, folder, width, height):
    """What the changed test pipeline makes of a noise image: it, the inputs and the metainfo of each view."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    mmcv.imwrite(image, str(folder / 'image.png'))
    Image.fromarray(np.ones((height, width), np.uint8)).save(folder / 'label.png')
    packed = Compose(cfg.test_dataloader.dataset.pipeline)(dict(
        img_path=str(folder / 'image.png'), seg_map_path=str(folder / 'label.png'), reduce_zero_label=True,
        seg_fields=[]))
    return image, packed['inputs'], packed['data_samples']


@pytest.mark.parametrize('config,width,height', PAPER_SIZES)
def test_the_paper_has_twelve_views(tmp_path, config, width, height):
    cfg = load_config(str(ROOT / config))
    cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    protocol = apply_protocol(cfg, 'paper')
    image, inputs, samples = views_of(cfg, tmp_path, width, height)
    sizes = PAPER_SIZES[config, width, height]
    assert [tuple(view.shape[1:]) for view in inputs] == [size for size in sizes for _ in range(2)]
    assert [sample.flip for sample in samples] == [False, True] * 6
    for view, mirrored, size in zip(inputs[::2], inputs[1::2], sizes):
        assert torch.equal(view.flip(-1), mirrored)
        if config == UPERNET:  # one resize of the original image
            expected = mmcv.imresize(image, size[::-1])
            assert np.abs(view.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    for sample in samples:  # scored at the original size, with labels that were not resized
        assert sample.ori_shape == (height, width) and sample.gt_sem_seg.shape == (height, width)
    assert cfg.model.type == 'RunningSumTTAModel' and cfg.model.module.test_cfg.mode == 'whole'
    assert protocol.mode == 'whole' and protocol.scales == [list(scale) for scale in PAPER_SCALES]
    assert protocol.flip and protocol.views == 12
    assert protocol.alignment == ('resized to multiples of 32' if config == FPN else 'none')


@pytest.mark.parametrize('config,sizes', [
    (UPERNET, [(182, 250), (273, 375), (364, 500), (455, 625), (546, 750), (637, 875)]),
    (FPN, [(192, 256), (288, 384), (384, 512), (480, 640), (576, 768), (640, 896)])])
def test_ms_rescales_the_original_image_and_keeps_the_alignment(tmp_path, config, sizes):
    cfg = load_config(str(ROOT / config))
    protocol = apply_protocol(cfg, 'ms')
    _, inputs, samples = views_of(cfg, tmp_path, 500, 364)
    assert [tuple(view.shape[1:]) for view in inputs] == [size for size in sizes for _ in range(2)]
    assert protocol.scales == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and protocol.views == 12
    assert protocol.alignment == ('resized to multiples of 32' if config == FPN else 'none')


def test_an_alignment_of_the_tta_pipeline_is_its_own():
    cfg = load_config(str(ROOT / FPN))
    cfg.tta_pipeline[1].transforms.insert(1, [dict(type='ResizeToMultiple', size_divisor=64)])
    assert apply_protocol(cfg, 'ms').alignment == 'resized to multiples of 64'
    assert str(cfg.test_dataloader.dataset.pipeline).count('ResizeToMultiple') == 1


def test_single_scale_is_described_and_not_changed():
    cfg = load_config(str(ROOT / UPERNET))
    cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    before = cfg.pretty_text
    assert str(apply_protocol(cfg, 'ss')) == (
        'ss (mode slide, windows 512 x 512, stride 341 x 341; scales 2048 x 512; no flip; alignment padded to '
        'multiples of 16; 1 view of an image)')
    assert cfg.pretty_text == before


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_joined_test_sets_are_predicted_alike(protocol):
    cfg, joined = load_config(str(ROOT / TOY)), load_config(str(ROOT / TOY))
    own = joined.test_dataloader.dataset
    other = dict(own, pipeline=[step for step in own.pipeline if step.type != 'CheckLabels'])
    joined.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[own, dict(type='RepeatDataset', times=2, dataset=other)])
    assert apply_protocol(joined, protocol) == apply_protocol(cfg, protocol)
    first, second = (dataset for _, dataset in find_datasets(joined, 'test'))
    assert first == cfg.test_dataloader.dataset
    assert (first.pipeline == second.pipeline) == (protocol == 'ms')  # of the others each keeps its own steps
    assert [step.type for step in second.pipeline][:2] == [step.type for step in first.pipeline][:2]


def test_what_a_config_cannot_serve_is_explained():
    cfg = load_config(str(ROOT / TOY))
    with pytest.raises(ConfigError, match='--protocol sm: allowed are ss, ms, paper'):
        apply_protocol(cfg, 'sm')
    pipeline = cfg.test_dataloader.dataset.pop('pipeline')
    with pytest.raises(ConfigError, match='changes test_dataloader.dataset.pipeline, and there is none'):
        apply_protocol(cfg, 'paper')
    cfg.test_dataloader.dataset.pipeline = pipeline
    apply_protocol(cfg, 'ms')
    with pytest.raises(ConfigError, match='has TestTimeAug already'):
        apply_protocol(cfg, 'paper')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(TOY, tmp_path_factory.mktemp('weights') / 'random.pth')


def without_labels(work_dir, checkpoint, folder, **options):
    cfg = load_config(str(ROOT / TOY), work_dir=str(work_dir))
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    return evaluate(cfg, str(checkpoint), no_gt=str(folder), **options)


@pytest.mark.slow
@pytest.mark.parametrize('protocol', ['ss', 'ms', 'paper'])
def test_a_folder_without_labels_by_each_protocol(toy_root, tmp_path, checkpoint, protocol):
    """Suffixes of any kind, folders in the folder; the mean of the views, computed apart."""
    (tmp_path / 'photos/more').mkdir(parents=True)
    source = toy_root / 'images/validation'
    image = Image.open(source / 'toy_validation_00000.jpg')
    if protocol == 'paper':  # whose views are large: a strip is enough
        image = image.crop((0, 100, image.width, 108))
    image.save(tmp_path / 'photos/more/a.b.JPG', quality=95)
    (tmp_path / 'photos/notes.txt').write_text('no image')
    if protocol != 'paper':
        Image.open(source / 'toy_validation_00001.jpg').save(tmp_path / 'photos/c.png')
    assert without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos', protocol=protocol) == {}
    written = {path.name for path in (tmp_path / 'work/predictions').iterdir()}
    assert written == ({'a.b.png'} if protocol == 'paper' else {'a.b.png', 'c.png'})
    width, height = image.size
    scales = dict(ss=[1.0], ms=[(int(width * r + 0.5), int(height * r + 0.5)) for r in (0.75, 1.0, 1.25)],
                  paper=PAPER_SCALES)[protocol]
    model = load_model(TOY, checkpoint)
    expected = mean_of_views(*model, tmp_path / 'photos/more/a.b.JPG', scales, 32, flips=(False, True)[:len(scales)])
    prediction = np.array(Image.open(tmp_path / 'work/predictions/a.b.png'))
    assert len(np.unique(expected)) > 3 and (prediction == expected + 1).mean() > 0.999


def test_folders_that_cannot_be_predicted_are_refused(toy_root, tmp_path, checkpoint):
    source = toy_root / 'images/validation/toy_validation_00000.jpg'
    with pytest.raises(ConfigError, match='photos: no such folder'):
        without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos')
    (tmp_path / 'photos/more').mkdir(parents=True)
    with pytest.raises(ConfigError, match='photos holds no image; files that end in .jpg'):
        without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos')
    shutil.copy(source, tmp_path / 'photos/a.jpg')
    for out in (tmp_path / 'photos', tmp_path / 'photos/out'):
        with pytest.raises(ConfigError, match='could overwrite images'):
            without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos', out=str(out))
    assert not (tmp_path / 'work').exists()
    shutil.copy(source, tmp_path / 'photos/a.png')
    with pytest.raises(ConfigError, match='photos/a.jpg and .*photos/a.png would both be written to a.png'):
        without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos')
    assert not list((tmp_path / 'work').rglob('*.png'))


def test_an_image_that_is_cut_off_is_named(toy_root, tmp_path, checkpoint):
    (tmp_path / 'photos').mkdir()
    content = (toy_root / 'images/validation/toy_validation_00000.jpg').read_bytes()
    (tmp_path / 'photos/a.jpg').write_bytes(content[:len(content) // 2])
    with pytest.raises(BrokenSampleError) as error:
        without_labels(tmp_path / 'work', checkpoint, tmp_path / 'photos')
    text = str(error.value)
    assert text.startswith(f'{tmp_path}/photos/a.jpg: ') and 'image file is truncated' in text


LAST = [dict(type='PackSegInputs')]
LOAD = dict(type='LoadImageFromFile')


@pytest.mark.parametrize('pipeline', [
    None, [], 'x', [LOAD, *LAST], [LOAD, dict(type='TestTimeAug', transform=[LAST])],
    [LOAD, dict(type='TestTimeAug', transforms=None)], [LOAD, dict(type='TestTimeAug', transforms=[[], LAST])],
    [LOAD, dict(type='TestTimeAug', transforms=[[dict(type='Resize', scale_factor=1.)]])],
    *([LOAD, dict(type='TestTimeAug', transforms=[[dict(type='Resize', **scale)], LAST])]
      for scale in (dict(), dict(scale=[64]), dict(scale_factor='x')))])
def test_views_that_cannot_be_made_are_explained(pipeline):
    cfg = load_config(str(ROOT / TOY))
    cfg.tta_pipeline = pipeline
    with pytest.raises(ConfigError, match='tta_pipeline'):
        apply_protocol(cfg, 'ms')


def test_a_resize_without_a_size_is_explained():
    cfg = load_config(str(ROOT / TOY))
    cfg.test_dataloader.dataset.pipeline = [LOAD, dict(type='Resize', keep_ratio=True), *LAST]
    with pytest.raises(ConfigError, match=r'Resize of test_dataloader.dataset.pipeline is .*allowed are scale='):
        apply_protocol(cfg, 'ss')
    cfg.test_dataloader.dataset.pipeline[1].scale_factor = (0.5, 1.)
    assert '(0.5, 1.0) x original' in str(apply_protocol(cfg, 'ss'))


def test_a_pipeline_around_the_test_set_is_explained():
    cfg = load_config(str(ROOT / TOY))
    cfg.test_dataloader.dataset = dict(
        type='MultiImageMixDataset', dataset=cfg.test_dataloader.dataset, pipeline=LAST)
    with pytest.raises(ConfigError, match='--protocol ms changes .* that of MultiImageMixDataset'):
        apply_protocol(cfg, 'ms')


class OwnTTA(SegTTAModel):
    pass


@pytest.mark.parametrize('kind,keeps', [('SegTTAModel', False), ('mmseg.SegTTAModel', False), (OwnTTA, True)])
def test_other_averages_get_what_they_need(kind, keeps):
    cfg = load_config(str(ROOT / TOY))
    cfg.tta_model = dict(type=kind)
    apply_protocol(cfg, 'ms')
    assert (cfg.model.type is OwnTTA) == keeps
    narrow(cfg.model.module)
    tta = MODELS.build(cfg.model).eval()
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    meta = dict(ori_shape=(64, 64), img_shape=(64, 64), img_path='x.png')
    view = dict(inputs=[image], data_samples=[SegDataSample(metainfo=meta)])
    with torch.no_grad():
        sample, = tta.test_step({key: [value, value] for key, value in view.items()})
    assert sample.pred_sem_seg.data.shape == (1, 64, 64) and sample.get('seg_logits') is None or keeps
    cfg = load_config(str(ROOT / TOY))
    cfg.tta_model = 'x'
    with pytest.raises(ConfigError, match="tta_model is 'x': allowed"):
        apply_protocol(cfg, 'ms')
