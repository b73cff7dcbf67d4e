"""Of the config inside a checkpoint only what inference needs is taken, as data; all else is refused or never read."""
import math
import os
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS, TRANSFORMS
from torch import nn

from mmseg_inceptionnext.checkpoints import embedded_config, guarded_build, safe_checkpoints
from mmseg_inceptionnext.checkpoints.embedded_config import LEFT_OUT, PUBLISHED, inference_config, to_json
from mmseg_inceptionnext.config import build_model
from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError
from mmseg_inceptionnext.evaluation.protocol import without_labels

from hostile import CONFIGS as EVIL
from utils import ROOT

CONFIGS = sorted(path for path in ROOT.glob('configs/*.py'))
assert CONFIGS
GOOD = "model = dict(type='EncoderDecoder')\n"
LOAD = "dict(type='LoadImageFromFile')"


def read(text):
    return embedded_config(dict(cfg=text), 'x.pth')


def pipeline(*steps):
    return read(f'{GOOD}test_dataloader = dict(dataset=dict(pipeline=[{", ".join(steps)}]))'
                ).test_dataloader.dataset.pipeline


def kept(part):
    """A part of a config without what is never taken."""
    if isinstance(part, dict):
        return {key: kept(value) for key, value in part.items() if key not in LEFT_OUT}
    return type(part)(map(kept, part)) if isinstance(part, (list, tuple)) else part


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_our_configs_come_back_as_they_were(path):
    cfg = Config.fromfile(path)
    taken = embedded_config(dict(cfg=cfg.pretty_text), 'x.pth')
    assert taken.model.to_dict() == kept(cfg.model.to_dict())
    dataset = cfg.test_dataloader.dataset
    steps = [step for step in without_labels(dataset.pipeline) if step['type'] != 'CheckLabels']
    assert taken.test_dataloader.dataset.pipeline == kept([step.to_dict() for step in steps])
    assert len(taken.test_dataloader.dataset.metainfo['classes']) == cfg.model.decode_head.num_classes
    assert taken.tta_model.to_dict() == kept(cfg.tta_model.to_dict())
    again = embedded_config({PUBLISHED: to_json(taken.to_dict())}, 'x.pth')
    assert repr(again.to_dict()) == repr(taken.to_dict())  # a tuple is no list
    assert inference_config(taken.to_dict(), 'x.pth').to_dict() == taken.to_dict()


def a_config_of_each_model():
    """Of those that come with MMSegmentation; two need other packages, one downloads."""
    folders = sorted((Path(mmseg.__file__).parent / '.mim/configs').glob('[a-z]*'))
    found = {folder.name: sorted(folder.glob('*.py')) for folder in folders}
    return [paths[0] for name, paths in found.items() if paths and name not in ('vpd', 'mask2former', 'maskformer')]


@pytest.mark.parametrize('path', a_config_of_each_model(), ids=lambda path: path.parent.name)
def test_mmsegmentations_models_are_taken(path):
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        pytest.skip(f'needs another package: {error}')
    if 'RS' in str(cfg.get('test_pipeline')) or 'Depth' in str(cfg.get('test_pipeline')):
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline  # a loader that needs GDAL
    taken = embedded_config(dict(cfg=cfg.pretty_text), 'x.pth')
    assert taken.model.to_dict() == kept(cfg.model.to_dict())


@pytest.mark.parametrize('value,expected', [
    ("(1, -2.5, None, True, 'x')", (1, -2.5, None, True, 'x')), ('[inf, -inf]', [math.inf, -math.inf]),
    ("dict(b=[1, {'c': 3}])", dict(b=[1, dict(c=3)])), ("dict(type='mmseg.FCNHead')", dict(type='mmseg.FCNHead')),
    ("dict(type='mmseg.models.FCNHead')", dict(type='mmseg.models.FCNHead')),
    ("dict(type='torch.nn.modules.batchnorm.BatchNorm2d')", dict(type='torch.nn.modules.batchnorm.BatchNorm2d')),
    ("dict(type='TIMMBackbone', model_name='resnet18.a1_in1k')",
     dict(type='TIMMBackbone', model_name='resnet18.a1_in1k')),
    ("dict(a=1, init_cfg=dict(type='Pretrained', checkpoint='http://x'), pretrained='a.pth')", dict(a=1)),
])
def test_values_of_models(value, expected):
    found = read(f"model = dict(type='EncoderDecoder', part={value})").model.to_dict()['part']
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize('name', EVIL)
def test_what_would_do_harm_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'words').write_text('')
    text, words = EVIL[name]
    with pytest.raises(UnsafeCheckpointError) as error:
        read(GOOD + text.format(mark=tmp_path / 'mark', url='http://127.0.0.1:1'))
    for word in (words, 'the config inside x.pth', 'nothing of it was run', '--trust-checkpoint', '--config'):
        assert word in str(error.value)
    assert len(str(error.value)) < 1500 and not (tmp_path / 'mark').exists()


@pytest.mark.parametrize('text', [
    'a = open("x")', 'a = [x for x in (1, 2)]', 'a = b', 'a, b = 1, 2', 'a.b = 1', 'a = 1 + "x"', 'a = f"{1}"',
    'a = dict(**b)', 'def f(): pass', 'a = lambda: 1', 'a: int = 1', 'a +=', 'a = "x" "\0"', 'a = {[]: 1}', 'a = -"x"',
    'a = ' + '[' * 500 + ']' * 500, 'a = ' + '-' * 10**5 + '1', 'a = ' + '9' * 10**5, '#' * 2**21, 'model = 3',
    "model = dict(type=['x'])", "model = dict(a={1: 2})", "model = dict(a=b'x')", 'model = dict(a={1, 2})',
    'model = dict(a=99999999)', 'filename = "x"', 'model = [1]', 'test_dataloader = 3',
])
def test_what_is_not_plain_data_is_refused(text):
    with pytest.raises(UnsafeCheckpointError, match='x.pth is not plain data'):
        read(text if text.startswith('model') else text + '\nmodel = 3')


def test_what_is_not_needed_is_not_looked_at():
    text = GOOD + "custom_hooks = [dict(type='no.such.Hook', file='/etc/passwd')]\ntrain_pipeline = 'x'\nvisualizer = 3"
    assert read(text).to_dict() == dict(default_scope='mmseg', model=dict(type='EncoderDecoder'))


def test_places_of_images_are_left_out():
    first, *others = pipeline(
        "dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'), to_float32=True)",
        "dict(type='LoadAnnotations', imdecode_backend='x.y')", "dict(type='mmcv.transforms.Resize', scale=[64, 32])")
    assert first == dict(type='LoadImageFromFile', to_float32=True) and others == [dict(type='Resize', scale=(64, 32))]
    TRANSFORMS.build(others[0])


def test_classes_come_from_the_config_or_the_registered_class():
    def metainfo(dataset):
        return read(f'{GOOD}test_dataloader = dict(dataset=dict(pipeline=[{LOAD}], {dataset}))'
                    ).test_dataloader.dataset.metainfo
    assert metainfo("type='ADE20KDataset'")['classes'][0] == 'wall'
    assert metainfo("type='ADE20KDataset', metainfo=dict(classes=('a', ))")['classes'] == ('a', )
    assert metainfo("type='os.system', metainfo=dict(classes='/etc/passwd', palette=[[1, 2, 3]])") == dict(
        palette=[[1, 2, 3]])


def test_the_first_of_joined_datasets_counts():
    dataset = f"dict(datasets=[dict(dataset=dict(type='CityscapesDataset', pipeline=[{LOAD}]))])"
    assert read(f'{GOOD}test_dataloader = dict(dataset={dataset})').test_dataloader.dataset.pipeline == [
        dict(type='LoadImageFromFile')]


def test_a_guarded_build_imports_nothing(tmp_path, monkeypatch):
    init_default_scope('mmseg')
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'evil.py').write_text('loaded = True')
    with guarded_build({}):
        assert isinstance(MODELS.build(dict(type='mmseg.models.CrossEntropyLoss')), CrossEntropyLoss)
        for kind in ('evil', 'os.system'):
            with pytest.raises((KeyError, TypeError)):
                MODELS.build(dict(type=kind))
    assert 'evil' not in sys.modules
    with pytest.raises((KeyError, TypeError)):
        MODELS.build(dict(type='evil'))
    assert 'evil' in sys.modules  # outside it, MMEngine does what it always did
    with safe_checkpoints(trust=True), guarded_build({}):
        assert MODELS.get('os.getcwd') is os.getcwd


@pytest.mark.parametrize('part', [
    lambda: nn.Linear(10**4, 10**4, device='meta'),
    lambda: nn.Module().register_buffer('a', torch.empty(10**9, dtype=torch.int8, device='meta'))],
    ids=['parameters', 'buffers'])
def test_a_model_is_not_much_larger_than_its_checkpoint(part):
    with guarded_build(dict(a=torch.ones(1000))), pytest.raises(ValueError, match='far more parameters'):
        part()
    with guarded_build(dict(a=torch.empty(1).expand(10**9))):
        part()


def test_a_model_of_a_million_blocks_is_refused_soon():
    cfg = Config.fromfile(ROOT / 'configs/fpn_inceptionnext_a_toy.py')
    cfg.model.backbone.arch = dict(depths=[10**6, 1, 1, 1], dims=[40, 80, 160, 320])
    cfg = embedded_config(dict(cfg=cfg.pretty_text), 'x.pth')
    with guarded_build(dict(a=torch.ones(1))), pytest.raises(ValueError, match='x.pth cannot be built here'):
        build_model(cfg, 'the config inside x.pth')


def test_a_checkpoint_without_a_config_is_named():
    for meta in ({}, dict(cfg=3), {PUBLISHED: 3, 'cfg': GOOD}):
        with pytest.raises(CheckpointError, match='x.pth holds no config'):
            embedded_config(meta, 'x.pth')
    with pytest.raises(UnsafeCheckpointError, match='x.pth is not plain data'):
        embedded_config({PUBLISHED: '[' * 10**5}, 'x.pth')


def test_trust_runs_it(tmp_path):
    with safe_checkpoints(trust=True):
        read(f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    assert (tmp_path / 'mark').exists()


def test_a_dict_whose_keys_are_no_names_is_data():
    step = f"dict(dataset=dict(label_map=dict({{0: 0, 255: 1}}), other=dict({{7: 'a'}}, b=2), pipeline=[{LOAD}]))"
    assert read(f'{GOOD}test_dataloader = {step}').test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'
    for wrong in ('dict([(0, 1)])', 'dict({0: 0}, {1: 1})', 'dict({0: print()})'):
        with pytest.raises(UnsafeCheckpointError):
            read(f'{GOOD}test_dataloader = {wrong}')
