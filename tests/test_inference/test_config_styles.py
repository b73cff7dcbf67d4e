"""Configs whose types are classes, and those whose test set joins or repeats others, serve every door of inference."""
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import ResultWriter, infer
from mmseg_inceptionnext.inference.page import segment_file

from utils import run_tool, save_checkpoint

LAZY = '''
from mmcv.transforms import LoadImageFromFile, RandomFlip, Resize, TestTimeAug
from mmengine.dataset import ConcatDataset, DefaultSampler, RepeatDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs, ResizeToMultiple
from mmseg.models import SegDataPreProcessor
from torch.nn import SyncBatchNorm
from mmseg_inceptionnext.datasets import ADEChallengeDataset, CheckLabels
from mmseg_inceptionnext.models import FastUPerHead, InceptionNeXt, MemoryEfficientEncoderDecoder, RunningSumTTAModel
norm = dict(type='SyncBN')
model = dict(
    type=MemoryEfficientEncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone=dict(type=InceptionNeXt, arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), norm_cfg=norm,
                  out_norm_cfg=norm),
    decode_head=dict(type=FastUPerHead, in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], channels=16,
                     num_classes=150, norm_cfg=norm, align_corners=False),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
align = dict(type=ResizeToMultiple, size_divisor=32)
pipeline = [dict(type=LoadImageFromFile), align, dict(type=LoadAnnotations), dict(type=CheckLabels),
            dict(type=PackSegInputs)]
part = dict(type=ADEChallengeDataset, data_root='ROOT',
            data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'), pipeline=pipeline)
test_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False), dataset=DATASET)
tta_model = dict(type=RunningSumTTAModel)
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=TestTimeAug, transforms=[
        [dict(type=Resize, scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0)],
        [dict(type=RandomFlip, prob=prob, direction='horizontal') for prob in (0., 1.)],
        [dict(type=LoadAnnotations)], [dict(type=PackSegInputs)]])]
'''
JOINED = ('dict(type={0}ConcatDataset{0}, datasets=[part, dict(part, pipeline=[dict(type=LoadImageFromFile)])])',
          'dict(type={0}RepeatDataset{0}, times=2, dataset=dict(type={0}ConcatDataset{0}, datasets=[part, part]))')


def as_names(text):
    """The config in the older style: with names."""
    lines = [line for line in text.splitlines() if not line.startswith('from ')]
    return re.sub(r'\btype=([A-Z]\w+)', r"type='\1'", '\n'.join(lines))


@pytest.fixture(scope='module')
def styles(tmp_path_factory, toy_root):
    """A config with names and one data set, its checkpoint, and the config in other styles."""
    folder = tmp_path_factory.mktemp('styles')
    files = {'plain': as_names(LAZY.replace('DATASET', 'part')), 'lazy': LAZY.replace('=DATASET', '=part')}
    for i, joined in enumerate(JOINED):
        files[f'joined_{i}'] = as_names(LAZY.replace('=DATASET', '=' + joined.format('')))
        files[f'lazy_joined_{i}'] = LAZY.replace('=DATASET', '=' + joined.format(''))
    for name, text in files.items():
        (folder / f'{name}.py').write_text(text.replace('ROOT', str(toy_root)))
    torch.manual_seed(0)
    save_checkpoint(folder / 'plain.py', folder / 'plain.pth')
    return folder


@pytest.fixture(scope='module')
def images(toy_root):
    return [str(path) for path in sorted((toy_root / 'images/validation').iterdir())]


@pytest.mark.parametrize('style', ['lazy', *(
    pytest.param(style, marks=pytest.mark.slow) for style in (
        'joined_0', 'joined_1', 'lazy_joined_0', 'lazy_joined_1'))])
def test_every_door_of_inference(styles, images, tmp_path, style):
    content = torch.load(styles / 'plain.pth', weights_only=False)
    content['meta'] = dict(cfg=Config.fromfile(styles / f'{style}.py').pretty_text)  # which names the classes, too
    torch.save(content, tmp_path / 'own.pth')
    for settings in (dict(), dict(tta=True, batch_size=2, probabilities=True)):
        expected = Segmenter(styles / 'plain.pth', **settings)(images)
        for segmenter in (Segmenter(tmp_path / 'own.pth', str(styles / f'{style}.py'), **settings),
                          Segmenter(tmp_path / 'own.pth', **settings)):
            for result, other in zip(segmenter(images), expected):
                assert (result.classes, result.palette) == (other.classes, other.palette)
                assert len(np.unique(result.mask)) > 1
                np.testing.assert_array_equal(result.mask, other.mask)
    summary = infer(segmenter, images, str(tmp_path / 'out'), ResultWriter(['index', 'overlay']))
    assert summary.images == len(images) and not summary.failures
    assert 'class="parts"' in segment_file(segmenter, images[0])


@pytest.mark.parametrize('style', ['lazy', *(
    pytest.param(style, marks=pytest.mark.slow) for style in ('joined_0', 'lazy_joined_1'))])
def test_export(styles, images, tmp_path, style):
    pytest.importorskip('onnxruntime')
    text = run_tool('tools/export_onnx.py', styles / f'{style}.py', styles / 'plain.pth', '--out',
                    tmp_path / 'a.onnx').stdout
    assert 'compared on the first 3 images of the test set' in text
    mask, expected = (Segmenter(path)(images[0]).mask for path in (tmp_path / 'a.onnx', styles / 'plain.pth'))
    assert (mask == expected).mean() > 0.99


def test_a_data_set_without_a_pipeline_is_explained(styles, tmp_path):
    for i, part in enumerate(('dict(type="BaseSegDataset")', 'dict(type="ConcatDataset", datasets=[dict(type="A")])')):
        path = tmp_path / f'{i}.py'
        path.write_text(f'_base_ = "{styles}/plain.py"\ntest_dataloader = dict(dataset=dict(_delete_=True, **{part}))')
        with pytest.raises(InputError, match=r'\d.py has no test_dataloader with a pipeline, which reads the images'):
            Segmenter(styles / 'plain.pth', str(path))
