"""The configs of other heads and losses: they train a step, and are the same fused, and in ONNX Runtime."""
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_inceptionnext import Segmenter, fuse
from mmseg_inceptionnext.analysis import count_complexity
from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import ADEChallengeDataset
from mmseg_inceptionnext.datasets.label_table import LabelTable
from mmseg_inceptionnext.export import ExportSettings, export_onnx
from mmseg_inceptionnext.export.exportable import ExportableSegmentor
from mmseg_inceptionnext.export.onnx_export import trace
from mmseg_inceptionnext.models.decode_heads.fixed_bases import fix_bases
from mmseg_inceptionnext.models.sync_bn import without_sync_bn
from mmseg_inceptionnext.parts import numbered, type_name

from utils import ROOT, randomise, total_loss

HEADS = {  # of configs/heads: what the first word of the name says
    'deeplabv3plus': ['DepthwiseSeparableASPPHead'], 'ham': ['LightHamHead'], 'ocr': ['FCNHead', 'OCRHead'],
    'segformer': ['SegformerHead'], 'fpn': ['FPNHead'],
}
LOSSES = {  # and the fourth
    'ohem': {'decode.loss_ce'}, 'weights': {'decode.loss_ce'}, 'dice': {'decode.loss_ce', 'decode.loss_dice'},
    'binary': {'decode.loss_ce'},
}
NAMES = sorted(path.stem for path in (ROOT / 'configs/heads').glob('*.py'))
NETWORKS = [name for name in NAMES if name.partition('_')[0] != 'fpn' or 'binary' in name]  # others are Semantic FPN's
NARROW = {96: 16, 192: 24, 384: 32, 768: 48, 256: 32, 512: 32}  # channels


def narrow(found):
    """Settings with few channels in place of many."""
    if isinstance(found, dict):
        for key, value in found.items():
            found[key] = narrow(value) if 'channels' in key or isinstance(value, (dict, list)) else value
    return [narrow(one) for one in found] if isinstance(found, list) else NARROW.get(found, found) if isinstance(
        found, int) else found


def config(name, options=None):
    cfg = load_config(str(ROOT / f'configs/heads/{name}.py'), options)
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        cfg.model[part] = narrow(cfg.model.get(part))
    cfg.model.backbone.update(
        arch=dict(depths=(1, 1, 1, 1), dims=[16, 24, 32, 48]), init_cfg=None, drop_path_rate=0.)
    if 'ohem' in name:
        cfg.model.decode_head.sampler.min_kept = 500
    return cfg


def segmentor(name):
    model = randomise(without_sync_bn(MODELS.build(config(name).model)))
    fix_bases(model)
    return model


def test_each_config_says_in_its_name_what_it_is():
    assert len(NAMES) == 8
    for name in NAMES:
        head, backbone, size, *loss, dataset = name.split('_')
        model = Config.fromfile(str(ROOT / f'configs/heads/{name}.py')).model
        assert [type_name(one) for _, one in numbered('', model.decode_head)] == HEADS[head]
        assert (backbone, size, dataset, model.backbone.arch) == ('inceptionnext', 't', 'ade20k', 'tiny')
        assert len(loss) == (head == 'fpn') and {*loss} <= {*LOSSES}


@pytest.mark.parametrize('name', NAMES)
def test_a_step_of_training(name):
    model = segmentor(name).train()
    labels = torch.randint(model.num_classes, (2, 1, 64, 64))
    labels[..., :20, :] = 255
    losses = model.loss(torch.randn(2, 3, 64, 64), [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in labels])
    variant = name.split('_')[3]
    if variant in LOSSES:
        assert {key for key in losses if 'loss' in key} == LOSSES[variant]
    total_loss(losses).backward()
    assert total_loss(losses) > 0 and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('name', [name if name[:3] in ('fpn', 'ham', 'ocr') else pytest.param(
    name, marks=pytest.mark.slow) for name in NETWORKS])
def test_fused_and_exported_it_predicts_the_same(name, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    model = segmentor(name).eval()
    image = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = ExportableSegmentor.logits_of(model, image)
        fused = ExportableSegmentor.logits_of(fuse(model), image)
        threshold = expected.sigmoid().median().item()
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    if model.out_channels == 1:
        model.decode_head.threshold = threshold  # of random weights
    trace(ExportableSegmentor(model, 'classes').eval(), str(tmp_path / 'a.onnx'))
    session = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'), providers=['CPUExecutionProvider'])
    classes, = session.run(None, dict(image=image.numpy()))
    with torch.no_grad():
        predicted, = model.predict(model.data_preprocessor(dict(inputs=[image[0].flip(0)]))['inputs'])
    assert len(np.unique(classes)) > 1 and (classes == predicted.pred_sem_seg.data.numpy()).mean() > 0.999


def test_one_channel_and_no_label_in_a_batch():
    model = segmentor('fpn_inceptionnext_t_binary_ade20k').train()
    losses = model.loss(torch.randn(2, 3, 64, 64), [
        SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 64, 64), 255))) for _ in range(2)])
    losses['decode.loss_ce'].backward()
    assert losses['decode.loss_ce'] == 0 and all((p.grad == 0).all() for p in model.parameters())


def test_persons_are_the_class_of_the_binary_config():
    dataset = Config.fromfile(str(ROOT / 'configs/heads/fpn_inceptionnext_t_binary_ade20k.py')).train_dataloader.dataset
    _, png = cv2.imencode('.png', np.array([[0, 1, 12, 13, 14, 150]], np.uint8))
    table = LabelTable(len(dataset.classes), dataset.label_map)
    assert table.read(png.tobytes(), 'a.png').tolist() == [[255, 0, 0, 1, 0, 0]] and table.values == [1, 13]
    assert ADEChallengeDataset.METAINFO['classes'][13 - 1] == dataset.classes[1] == 'person'


@pytest.mark.slow
def test_the_page_has_the_macs():
    rows = re.findall(r'^\| `heads/(\w+)\.py`.*\| ([\d.]+) G \|$', (ROOT / 'docs/train.md').read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    for name, macs in rows:
        total = count_complexity(Config.fromfile(str(ROOT / f'configs/heads/{name}.py')), (512, 512))[-1]
        assert round(total.macs / 1e9, 1) == float(macs), name


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_trained_from_files_and_exported(name, toy_root, tmp_path):
    """By the runner, on drawn scenes in ADE20K's layout; the checkpoint predicts as itself, fused, and as ONNX."""
    cfg = config(name, {
        'train_pipeline.3.scale': (128, 96), 'train_pipeline.4.crop_size': (64, 64), 'test_pipeline.1.scale': (128, 96),
        'model.data_preprocessor.size': (64, 64), 'train_dataloader.batch_size': 2, 'data_root': str(toy_root),
        **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')}})
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    train(cfg)
    cfg.dump(tmp_path / 'config.py')
    checkpoint, images = str(tmp_path / 'work/iter_2.pth'), list(map(str, (toy_root / 'images/validation').iterdir()))
    masks = [Segmenter(checkpoint, fuse_model=fused)(images[0]).mask for fused in (True, False)]
    assert (masks[0] == masks[1]).mean() > 0.999
    pytest.importorskip('onnxruntime')
    agreement = export_onnx(
        str(tmp_path / 'config.py'), checkpoint, str(tmp_path / 'a.onnx'), images, ExportSettings())
    assert agreement.passed, str(agreement)
