"""Errors in a config and in a user's own modules name the file and the line."""
import warnings

import pytest

from mmseg_inceptionnext import apis
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import ConfigError

MODULES = {
    'name': ('value = 1\n\n\ndef register():\n    return valeu\n\n\nregister()\n', 'NameError', 5, "'valeu'"),
    'syntax': ('value = 1\nif value\n    pass\n', 'SyntaxError', 2, ''),
    'missing': ('import os\nimport no_such_package_of_mine\n', 'ModuleNotFoundError', 2, 'no_such_package_of_mine'),
    'library': ('import json\n\njson.loads("{")\n', 'JSONDecodeError', 3, 'line 1'),
}


@pytest.mark.parametrize('name', MODULES)
def test_a_typo_in_a_module_of_custom_imports(tmp_path, monkeypatch, name):
    text, error, line, words = MODULES[name]
    module = tmp_path / f'my_{name}_module.py'
    module.write_text(text)
    (tmp_path / 'config.py').write_text(f"custom_imports = dict(imports=['my_{name}_module'])\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / 'config.py'))
    text = str(caught.value)
    assert text.startswith(f'{tmp_path}/config.py cannot be read: {error} in {module}, line {line}: ') and words in text
    assert caught.value.__cause__ is not None and len(text.splitlines()) == 1


def test_a_typo_in_the_config_itself(tmp_path):
    (tmp_path / 'config.py').write_text("a = 1\nb = dict(type=tpye)\n")
    with pytest.raises(ConfigError, match=r"NameError in .*config.py, line 2: .*'tpye'"):
        load_config(str(tmp_path / 'config.py'))


def test_options_are_not_changed(tmp_path):
    (tmp_path / 'config.py').write_text("data_root = 'data'\ntrain_dataloader = dict(dataset=dict(data_root='data'))\n")
    options = dict(data_root=2016)
    cfg = load_config(str(tmp_path / 'config.py'), options)
    assert options == dict(data_root=2016) and cfg.train_dataloader.dataset.data_root == cfg.data_root == '2016'


def test_the_former_name_of_evaluate():
    with pytest.warns(FutureWarning, match='evaluate'):
        assert apis.test is apis.evaluate
    with warnings.catch_warnings(), pytest.raises(AttributeError):
        apis.no_such_name  # noqa: B018
