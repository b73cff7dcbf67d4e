"""What a user reads when the installation does not fit."""
import configparser
import sys

import pytest
from packaging.requirements import Requirement

from mmseg_inceptionnext import stack

from utils import ROOT, run_tool


def installed(monkeypatch, versions, broken=(), error='operator torchvision::nms does not exist\nmore lines'):
    """Pretends that these distributions are installed and that the modules in ``broken`` do not import."""
    def import_module(name):
        if name in broken:
            raise RuntimeError(error)
    monkeypatch.setattr(stack, '_version', versions.get)
    monkeypatch.setattr(stack.importlib, 'import_module', import_module)


ONEDL = {'torch': '2.14.1', 'torchvision': '0.29.1', 'timm': '1.0.31', 'onedl-mmengine': '0.10.12',
         'onedl-mmcv': '2.3.6', 'onedl-mmsegmentation': '1.4.2'}
OPENMMLAB = {'torch': '2.1.2+cu121', 'torchvision': '0.16.2', 'timm': '1.0.31', 'mmengine': '0.10.7', 'mmcv': '2.1.0',
             'mmsegmentation': '1.2.2'}


@pytest.mark.parametrize('versions', [ONEDL, OPENMMLAB], ids=['onedl', 'openmmlab'])
def test_both_stacks_fit(monkeypatch, versions):
    installed(monkeypatch, versions)
    assert stack.error_message(stack.inspect_stack()) == ''
    text, fits = stack.report()
    assert fits and 'verdict     fits' in text and all(version in text for version in versions.values())


@pytest.mark.parametrize('change,broken,words', [
    ({'onedl-mmsegmentation': None}, (), ['mmseg: not installed', 'onedl-mmsegmentation >=1.4.2',
                                          'mmsegmentation >=1.2,<1.3', 'pip install']),
    ({'onedl-mmcv': '2.3.5'}, (), ['mmcv: onedl-mmcv 2.3.5: needs onedl-mmcv >=2.3.6']),
    ({'torch': '2.0.1'}, (), ['torch: torch 2.0.1: needs torch >=2.1']),
    ({'mmengine': '0.10.7'}, (), ['two packages write the same files', 'pip uninstall onedl-mmengine mmengine']),
    ({}, ('timm', ), ['timm 1.0.31: does not import: RuntimeError: operator torchvision::nms does not exist\n']),
])
def test_what_is_wrong_is_named_with_the_fix(monkeypatch, change, broken, words):
    installed(monkeypatch, {**ONEDL, **change}, broken)
    text = stack.error_message(stack.inspect_stack())
    assert all(word in text for word in [*words, stack.INSTALL['onedl']]), text
    report, fits = stack.report()
    assert not fits and stack.INSTALL['onedl'] in report


def test_an_openmmlab_stack_is_mended_as_one(monkeypatch):
    installed(monkeypatch, {**OPENMMLAB, 'mmcv': '2.2.0'})
    text = stack.error_message(stack.inspect_stack())
    assert 'mmcv 2.2.0: needs' in text and stack.INSTALL['openmmlab'] in text


@pytest.mark.parametrize('versions,family,removed', [
    ({**OPENMMLAB, 'mmsegmentation': None}, 'openmmlab', ''),
    ({**OPENMMLAB, 'mmcv': None, 'mmcv-lite': '1.7'}, 'openmmlab', 'mmcv-lite'),
    ({**ONEDL, 'mmengine': '0.10.7'}, 'onedl', 'onedl-mmengine mmengine onedl-mmcv onedl-mmsegmentation'),
    ({**ONEDL, 'onedl-mmcv': None, 'mmcv': '2.1.0'}, 'onedl', 'mmcv'),
    ({'torch': '2.14.1'}, 'onedl', ''),
])
def test_the_fix_removes_what_stands_in_the_way(monkeypatch, versions, family, removed):
    installed(monkeypatch, versions)
    uninstall = f'pip uninstall -y {removed} && ' if removed else ''
    assert stack.fix_command(stack.inspect_stack()) == uninstall + stack.INSTALL[family]


@pytest.mark.parametrize('mmcv,error,fix', [
    ('mmcv-lite', "No module named 'mmcv.ops'", 'pip uninstall -y mmcv-lite && ' + stack.INSTALL['openmmlab']),
    ('mmcv', "No module named 'mmcv._ext'", ' --no-build-isolation --no-cache-dir "mmcv>=2.0,<2.2"'),
    ('mmcv', 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN', 'pip uninstall -y mmcv && pip'),
])
def test_missing_operators_are_explained(monkeypatch, mmcv, error, fix):
    installed(monkeypatch, {**OPENMMLAB, 'mmcv': None, mmcv: '2.1.0'}, ('mmseg.models', ), error)
    text = stack.error_message(stack.inspect_stack())
    assert f'mmseg: mmsegmentation 1.2.2: does not import: RuntimeError: {error}: mmsegmentation needs mmcv with its ' \
           'compiled operators' in text
    assert fix in text and 'MMCV_WITH_OPS=1' in text


def test_an_error_without_text_is_reported(monkeypatch):
    def import_module(name):
        raise AssertionError
    installed(monkeypatch, ONEDL)
    monkeypatch.setattr(stack.importlib, 'import_module', import_module)
    assert 'does not import: AssertionError' in stack.report()[0]


def test_the_fix_and_the_check_ask_for_what_setup_cfg_asks():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    lines = setup['options']['install_requires'] + setup['options.extras_require']['onedl'] + \
        setup['options.extras_require']['openmmlab']
    declared = {r.name: r.specifier for r in map(Requirement, lines.split())}
    for requirement in stack.REQUIREMENTS:
        for name, (at_least, below) in requirement.distributions.items():
            if name == 'mmcv-lite':  # runs where nothing of mmcv.ops is imported, so it is accepted and not asked for
                continue
            specifiers = {f'>={at_least}'} | ({f'<{below}'} if below else set())
            assert {str(s) for s in declared[name]} == specifiers, name
    for name in ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'timm', 'torch'):
        assert f'"{name}{declared[name]}"' in stack.INSTALL['onedl']


def broken_mmseg(tmp_path, error="ImportError('no such op')", module='__init__.py'):
    (tmp_path / 'mmseg').mkdir()
    (tmp_path / 'mmseg' / '__init__.py').touch()
    (tmp_path / 'mmseg' / module).write_text(f'raise {error}')
    return f'{tmp_path}:{ROOT}'


def test_the_import_error_says_it_all(tmp_path):
    result = run_tool('-c', 'import mmseg_inceptionnext', check=False, PYTHONPATH=broken_mmseg(tmp_path))
    assert result.returncode == 1
    assert 'ImportError: mmseg_inceptionnext cannot run on what is installed here' in result.stdout
    assert 'does not import: ImportError: no such op' in result.stdout and 'pip install' in result.stdout


def test_the_import_error_of_mmcv_lite_is_a_sentence(tmp_path):
    """MMSegmentation 1.2 imports with mmcv-lite, but its models do not."""
    path = broken_mmseg(tmp_path, """ModuleNotFoundError("No module named 'mmcv.ops'")""", 'models.py')
    result = run_tool('-c', 'import mmseg_inceptionnext', check=False, PYTHONPATH=path)
    assert result.returncode == 1 and f'ModuleNotFoundError: No module named \'mmcv.ops\': {stack.NO_OPERATORS}' in \
        result.stdout
    assert 'This mends it:' in result.stdout and result.stdout.count('Traceback') == 1


def test_the_report_survives_a_broken_stack(tmp_path):
    result = run_tool('-m', 'mmseg_inceptionnext', check=False, PYTHONPATH=broken_mmseg(tmp_path))
    assert result.returncode == 1 and 'Traceback' not in result.stdout
    assert 'verdict     does not fit' in result.stdout and 'no such op' in result.stdout


def test_the_report_of_this_installation():
    result = run_tool('-m', 'mmseg_inceptionnext')
    assert f'{sys.version_info.major}.{sys.version_info.minor}' in result.stdout
    assert 'verdict     fits' in result.stdout and 'cpu (' in result.stdout
