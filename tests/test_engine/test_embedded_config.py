"""The config inside a checkpoint is data; whatever MMEngine would run of it is refused."""
import os
import pickle

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS, TRANSFORMS

from mmseg_inceptionnext.engine import UnsafeCheckpointError, load_source, parse_embedded_config, safe_checkpoints
from mmseg_inceptionnext.engine.embedded_config import allowing_imports, guarded_build
from mmseg_inceptionnext.engine.safe_reading import trusting

from utils import EVIL_CONFIGS, ROOT, Malicious

CONFIGS = sorted(ROOT.glob('configs/*.py'))
assert CONFIGS


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_our_configs_come_back_as_they_were(path):
    cfg = Config.fromfile(path)
    assert parse_embedded_config(cfg.pretty_text, 'x.pth').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('text,expected', [
    ('a = (1, -2.5, None, True, "x")', (1, -2.5, None, True, 'x')),
    ('a = dict(b=[1, {2: 3}], c={4, 5})', dict(b=[1, {2: 3}], c={4, 5})),
    ('a = dict({"x y": 1}, z=2)', {'x y': 1, 'z': 2}),
    ('a = [inf, -inf]', [float('inf'), -float('inf')]),
    ("a = dict(type='mmseg.EncoderDecoder')", dict(type='mmseg.EncoderDecoder')),
    ("a = dict(type='mmseg.models.EncoderDecoder')", dict(type='mmseg.models.EncoderDecoder')),
    ("a = dict(type='AdamW')", dict(type='AdamW')),
])
def test_data_is_read(text, expected):
    value = parse_embedded_config(text, 'x.pth').to_dict()['a']
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize('name', EVIL_CONFIGS)
def test_a_config_that_would_run_something_is_refused(tmp_path, name):
    mark = tmp_path / 'mark'
    text, words = EVIL_CONFIGS[name]
    with pytest.raises(UnsafeCheckpointError) as error:
        parse_embedded_config(text.format(mark=mark), 'x.pth')
    for word in (words, 'the config inside x.pth', 'nothing of it was run', '--trust-checkpoint'):
        assert word in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize('text', [
    'a = open("x")', 'a = [x for x in (1, 2)]', 'a = b', 'a, b = 1, 2', 'a.b = 1', 'a = 1 + 1', 'a = f"{1}"',
    'a = dict(**b)', 'def f(): pass', 'a = lambda: 1', 'a: int = 1', 'a +=', 'a = "x" "\0"', 'a = {[]: 1}', 'a = -"x"',
    'a = ' + '[' * 500 + ']' * 500, "a = dict(type=['x'])", "default_scope = 'mmdet'",
    "a = dict(type='Resize', _scope_='mmdet')", "_base_ = './other.py'", "a = dict(_base_='x')",
])
def test_what_is_not_plain_data_is_refused(text):
    with pytest.raises(UnsafeCheckpointError, match='x.pth is not plain data'):
        parse_embedded_config(text, 'x.pth')


def test_timms_downloads_are_taken_out():
    text = ("model = dict(type='TIMMBackbone', model_name='resnet18', pretrained=True, checkpoint_path='a.pth', "
            "pretrained_cfg_overlay=dict(url='http://127.0.0.1/a.pth'))")
    assert parse_embedded_config(text, 'x.pth').model == dict(
        type='TIMMBackbone', model_name='resnet18', pretrained=False)


def test_a_guarded_build_imports_and_unpickles_nothing(tmp_path):
    mark = tmp_path / 'mark'
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(Malicious(os.system, f'touch {mark}')))
    attempts = [
        lambda: MODELS.build(dict(type='os.system', command=f'touch {mark}')),
        lambda: TRANSFORMS.build(dict(type='logging.basicConfig', filename=str(mark))),
        lambda: MODELS.build(dict(type='CrossEntropyLoss', class_weight=str(tmp_path / 'a.pkl'))),
        lambda: mmengine.load(str(tmp_path / 'a.pkl')),
    ]
    with guarded_build():
        assert isinstance(MODELS.build(dict(type='mmseg.models.CrossEntropyLoss')), CrossEntropyLoss)
        for attempt in attempts:
            with pytest.raises((KeyError, TypeError)):
                attempt()
    assert not mark.exists()
    attempts[-1]()
    assert mark.exists()  # outside it, MMEngine does what it always did


@pytest.mark.parametrize('kind', ['torch.nn.modules.batchnorm.BatchNorm2d', 'mmengine.model.PretrainedInit'])
def test_classes_of_configs_in_the_newer_style(kind):
    assert parse_embedded_config(f"a = dict(type='{kind}')", 'x.pth').a.type == kind


def test_the_users_own_imports_are_allowed():
    text = "custom_imports = dict(imports=['my_project.models'])"
    for names in (['my_project'], 'my_project'):
        with allowing_imports(names):
            parse_embedded_config(text, 'x.pth')
    with pytest.raises(UnsafeCheckpointError, match="custom_imports of 'my_project.models'"):
        parse_embedded_config(text, 'x.pth')


def test_trust_runs_it(tmp_path):
    text = EVIL_CONFIGS['executes'][0].format(mark=tmp_path / 'mark')
    with trusting(True):
        parse_embedded_config(text, 'x.pth')
    assert (tmp_path / 'mark').exists()


@pytest.mark.parametrize('key', ['cfg', 'config'])
def test_every_source_checks_it(tmp_path, key):
    torch.save(dict(state_dict={}, meta={key: 'import os'}), tmp_path / 'x.pth')
    with pytest.raises(UnsafeCheckpointError, match='line 1 is no assignment to a name: import os'):
        load_source(str(tmp_path / 'x.pth'))


def test_what_mmengine_would_run_when_it_resumes_is_not_handed_on(tmp_path):
    from mmengine.runner import CheckpointLoader
    torch.save(dict(state_dict={}, meta=dict(config='a = 1', cfg='a = 1')), tmp_path / 'x.pth')
    with safe_checkpoints():
        meta = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))['meta']
    assert meta == dict(cfg='a = 1')
