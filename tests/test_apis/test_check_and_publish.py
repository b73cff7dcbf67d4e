"""check_checkpoint says what would load; publish_checkpoint writes a file that needs no other."""
import hashlib
import re

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.apis import check_checkpoint, publish_checkpoint
from mmseg_inceptionnext.checkpoints import load_source
from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.version import __version__

from utils import ROOT, TOY, run_tool, save_checkpoint

ATTO, TINY = 'configs/fpn_inceptionnext_a_ade20k.py', 'configs/fpn_inceptionnext_t_ade20k.py'


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    return save_checkpoint(TOY, tmp_path_factory.mktemp('segmentor') / 'toy.pth', iter=800)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp('classifier') / 'atto.pth'
    torch.save(dict(state_dict_ema=timm.create_model('inception_next_atto').state_dict()), path)
    return path


def rows(table):
    return dict(re.findall(r'^\| ([\w ]+?) +\| (.*?) +\|$', table, flags=re.M))


def test_a_whole_segmentor(segmentor):
    table, problem = check_checkpoint(str(segmentor))
    found = rows(table)
    assert problem == '' and found['holds'] == 'a whole segmentor, arch atto'
    assert found['classes'].startswith('150: wall, building') and found['config inside'] == 'yes'
    state = torch.load(segmentor, weights_only=False)['state_dict']
    assert found['tensors'].startswith(f'{len(state)}, {sum(v.numel() for v in state.values()) / 1e6:.2f} M')
    _, problem = check_checkpoint(str(segmentor), str(ROOT / TINY))
    assert 'do not fit the model of the config' in problem and 'of another shape' in problem


def test_a_classifier(classifier):
    table, problem = check_checkpoint(str(classifier))
    assert problem == '' and rows(table)['holds'] == 'a backbone, arch atto' and rows(table)['classes'] == 'not named'
    assert check_checkpoint(str(classifier), str(ROOT / ATTO))[1] == ''
    _, problem = check_checkpoint(str(classifier), str(ROOT / TINY))
    assert "This is arch 'atto', the model is 'tiny'" in problem


def test_the_tool_exits_1_for_what_would_not_load(segmentor, classifier, tmp_path):
    assert 'would load completely' in run_tool('tools/check_checkpoint.py', segmentor).stdout
    result = run_tool('tools/check_checkpoint.py', classifier, '--config', TINY, check=False)
    assert result.returncode == 1 and 'would not load' in result.stdout and 'Traceback' not in result.stdout
    torch.save(timm.create_model('convnext_atto').state_dict(), tmp_path / 'convnext.pth')
    table, problem = check_checkpoint(str(tmp_path / 'convnext.pth'))
    assert rows(table)['holds'] == 'a backbone, arch ConvNeXt' and '--config' in problem
    (tmp_path / 'text.pth').write_text('hello')
    with pytest.raises(CheckpointError, match='text.pth is damaged or no checkpoint'):
        check_checkpoint(str(tmp_path / 'text.pth'))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_published_file_needs_no_other(segmentor, toy_root, tmp_path, suffix):
    published = run_tool('tools/publish_checkpoint.py', segmentor, tmp_path / f'toy{suffix}').stdout.split()[-1]
    content = open(published, 'rb').read()
    digest = hashlib.sha256(content).hexdigest()
    assert published == str(tmp_path / f'toy-{digest[:8]}{suffix}')
    assert [path.name for path in tmp_path.iterdir()] == [f'toy-{digest[:8]}{suffix}']
    assert str(segmentor.parent).encode() not in content
    loaded, source = load_source(published), load_source(str(segmentor))
    assert loaded.keys() == {'state_dict', 'meta'}
    assert loaded['state_dict'].keys() == source['state_dict'].keys()
    assert all(torch.equal(value, source['state_dict'][key]) for key, value in loaded['state_dict'].items())
    assert loaded['meta'].keys() == {'inference_config', 'dataset_meta', 'mmseg_inceptionnext_version'}
    assert loaded['meta']['mmseg_inceptionnext_version'] == __version__
    image = toy_root / 'images/validation/toy_validation_00000.jpg'
    run_tool('tools/infer.py', published, image, '--out-dir', tmp_path / 'out', cwd=ROOT)
    expected, result = Segmenter(str(segmentor)), Segmenter(published)
    np.testing.assert_array_equal(result(str(image)).mask, expected(str(image)).mask)
    assert (result.classes, result.palette) == (expected.classes, expected.palette)
    assert (tmp_path / 'out/toy_validation_00000.png').is_file()
    assert publish_checkpoint(str(segmentor), str(tmp_path / f'toy{suffix}')) == published  # the same bytes again


def test_of_averaged_weights_those_are_published_that_mmengine_loads(segmentor, tmp_path):
    checkpoint = torch.load(segmentor, weights_only=False)
    raw = {key: value + 1 for key, value in checkpoint['state_dict'].items()}
    torch.save({**checkpoint, 'ema_state_dict': raw}, tmp_path / 'ema.pth')  # as its EMAHook exchanges the two
    found = load_source(publish_checkpoint(str(tmp_path / 'ema.pth'), str(tmp_path / 'a.pth')))['state_dict']
    assert found.keys() == checkpoint['state_dict'].keys()
    assert all(torch.equal(value, checkpoint['state_dict'][key]) for key, value in found.items())


def test_what_cannot_be_published_is_explained(segmentor, classifier, tmp_path):
    with pytest.raises(CheckpointError, match='holds no config or no classes'):
        publish_checkpoint(str(classifier), str(tmp_path / 'a.pth'))
    with pytest.raises(ValueError, match='a.onnx: allowed are files that end in .pth, .pt, .safetensors'):
        publish_checkpoint(str(segmentor), str(tmp_path / 'a.onnx'))
    assert list(tmp_path.iterdir()) == []


def test_paths_of_the_machine_are_not_published(segmentor, tmp_path):
    checkpoint = torch.load(segmentor, weights_only=False)
    cfg = Config.fromstring(checkpoint['meta']['cfg'], file_format='.py')
    cfg.work_dir, cfg.load_from = '/home/someone/work', '/home/someone/a.pth'
    cfg.data_root = cfg.test_dataloader.dataset.data_root = '/home/someone/data/ade'
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='/home/someone/b.pth')
    checkpoint['meta']['cfg'] = cfg.pretty_text
    torch.save(checkpoint, tmp_path / 'a.pth')
    text = load_source(publish_checkpoint(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')))['meta']['inference_config']
    assert 'someone' in checkpoint['meta']['cfg'] and 'someone' not in text
