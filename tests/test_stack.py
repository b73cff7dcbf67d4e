"""What a user reads when the installation does not fit."""
import configparser
import sys
import warnings

import pytest
from packaging.requirements import Requirement

from mmseg_inceptionnext import __main__, stack

from utils import ROOT, run_tool

ONEDL = {'torch': '2.14.1', 'torchvision': '0.29.1', 'timm': '1.0.31', 'onedl-mmengine': '0.10.12',
         'onedl-mmcv': '2.3.6', 'onedl-mmsegmentation': '1.4.2'}
OPENMMLAB = {'torch': '2.1.2+cu121', 'torchvision': '0.16.2', 'timm': '1.0.31', 'mmengine': '0.10.7', 'mmcv': '2.1.0',
             'mmsegmentation': '1.2.2'}


@pytest.fixture
def installed(monkeypatch):
    """Pretends that some distributions are installed and that the modules in ``broken`` do not import."""

    def pretend(versions, broken=(), error=None):

        def import_module(name):
            if name in broken:
                raise error

        monkeypatch.setattr(stack, '_version', versions.get)
        monkeypatch.setattr(stack.importlib, 'import_module', import_module)

    yield pretend
    monkeypatch.undo()


@pytest.mark.parametrize('versions', [ONEDL, OPENMMLAB], ids=['onedl', 'openmmlab'])
def test_both_stacks_fit(installed, versions, capsys):
    installed(versions)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        stack.check_stack()
    assert __main__.main() == 0
    printed = capsys.readouterr().out
    assert 'verdict     fits' in printed and all(version in printed for version in versions.values())


@pytest.mark.parametrize('base,change,words', [
    (ONEDL, {'onedl-mmcv': '2.3.5'}, ['mmcv', 'onedl-mmcv 2.3.5: tested with onedl-mmcv>=2.3.6 or mmcv<2.2,>=2.0']),
    (ONEDL, {'torch': '2.0.1'}, ['torch 2.0.1: tested with torch>=2.1']),
    (ONEDL, {'mmengine': '0.10.7'}, ['two packages write the same files', 'pip uninstall -y onedl-mmengine mmengine']),
    (OPENMMLAB, {'mmcv': '2.2.0'}, ['mmcv 2.2.0: tested with']),
])
def test_other_versions_are_a_warning_with_the_range_and_the_command(installed, capsys, base, change, words):
    installed({**base, **change})
    family = 'onedl' if base is ONEDL else 'openmmlab'
    with pytest.warns(UserWarning) as found:
        stack.check_stack()
    warning, = (str(warning.message) for warning in found)
    assert __main__.main() == 1
    for text in (warning, capsys.readouterr().out):
        assert all(word in text for word in [*words, stack.INSTALL[family]]), text


@pytest.mark.parametrize('base,change,broken,error,words', [
    (ONEDL, {'onedl-mmsegmentation': None}, 'mmseg.models', ImportError('No module named mmseg'),
     ['mmseg ', 'not installed: needs onedl-mmsegmentation>=1.4.2 or mmsegmentation']),
    (ONEDL, {}, 'timm', RuntimeError('operator torchvision::nms does not exist\nmore lines'),
     ['timm 1.0.31: does not import: RuntimeError: operator torchvision::nms does not exist\n']),
    (ONEDL, {}, 'torch', AssertionError(), ['does not import: AssertionError']),
    (OPENMMLAB, {'mmcv': None, 'mmcv-lite': '2.1.0'}, 'mmseg.models', ImportError("No module named 'mmcv.ops'"),
     [stack.NO_OPERATORS, 'pip uninstall -y mmengine mmcv-lite mmsegmentation && ']),
    (OPENMMLAB, {}, 'mmseg.models', ImportError('mmcv/_ext.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN'),
     [stack.NO_OPERATORS, 'pip uninstall -y mmengine mmcv mmsegmentation && ']),
])
def test_what_does_not_import_is_an_import_error_with_the_command(installed, base, change, broken, error, words):
    installed({**base, **change}, [broken], error)
    with pytest.raises(ImportError) as raised:
        stack.check_stack()
    family = 'onedl' if base is ONEDL else 'openmmlab'
    assert all(word in str(raised.value) for word in [*words, stack.INSTALL[family]]), raised.value
    assert raised.value.__cause__ is error


@pytest.mark.parametrize('versions,family,removed', [
    ({**OPENMMLAB, 'mmsegmentation': None}, 'openmmlab', ''),
    ({**OPENMMLAB, 'mmcv': None, 'mmcv-lite': '1.7'}, 'openmmlab', 'mmengine mmcv-lite mmsegmentation'),
    ({**ONEDL, 'onedl-mmcv': None, 'mmcv': '2.1.0'}, 'onedl', 'onedl-mmengine mmcv onedl-mmsegmentation'),
    ({'torch': '2.14.1'}, 'onedl', ''),
])
def test_the_command_removes_what_is_in_the_way(installed, versions, family, removed):
    installed(versions)
    uninstall = f'pip uninstall -y {removed} && ' if removed else ''
    assert stack.fix_command(stack.inspect_stack()) == uninstall + stack.INSTALL[family]


def test_setup_cfg_asks_for_the_tested_versions():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    lines = setup['options']['install_requires'] + setup['options.extras_require']['onedl'] + \
        setup['options.extras_require']['openmmlab']
    declared = {r.name: r.specifier for r in map(Requirement, lines.split())}
    for tested in map(Requirement, sum(stack.REQUIREMENTS.values(), [])):
        if tested.name != 'mmcv-lite':  # runs where nothing of mmcv.ops is imported, so it is accepted, not asked for
            assert declared[tested.name] == tested.specifier


def test_only_known_lines_are_left_out(capfd):
    with warnings.catch_warnings(record=True) as found, stack.quiet_imports():
        warnings.simplefilter('always', append=True)
        print('Could not import OneDL')
        print('Could not import the operators')
        warnings.warn('Fail to import ``MultiScaleDeformableAttention`` from mmcv', stacklevel=1)
        warnings.warn('Fail to import another thing', stacklevel=1)
    assert [str(warning.message) for warning in found] == ['Fail to import another thing']
    assert capfd.readouterr() == ('', 'Could not import the operators\n')


@pytest.mark.slow
def test_a_broken_library_is_an_import_error_also_of_the_report(tmp_path):
    """MMSegmentation 1.2 imports with mmcv-lite, but its models do not."""
    (tmp_path / 'mmseg').mkdir()
    (tmp_path / 'mmseg/__init__.py').touch()
    (tmp_path / 'mmseg/models.py').write_text("""raise ModuleNotFoundError("No module named 'mmcv.ops'")""")
    for command in (['-c', 'import mmseg_inceptionnext'], ['-m', 'mmseg_inceptionnext']):
        result = run_tool(*command, check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
        assert result.returncode == 1
        assert 'ImportError: mmseg_inceptionnext cannot run on what is installed here' in result.stdout
        assert stack.NO_OPERATORS in result.stdout and 'pip install' in result.stdout


def test_the_report_of_this_installation():
    """And nothing else: importing the package prints nothing."""
    lines = run_tool('-m', 'mmseg_inceptionnext').stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        'python', 'torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmseg', 'devices', 'verdict']
    assert f' {sys.version_info.major}.{sys.version_info.minor}' in lines[0] and 'cpu (' in lines[-2]
    assert lines[-1].split() == ['verdict', 'fits']


def test_it_needs_no_torch_distributed():
    """The libraries, whose newest versions do, are loaded before."""
    code = '''
import sys, types
import mmengine.runner, mmseg.models, mmseg.apis, timm, torch
for name in [name for name in sys.modules if name.startswith('torch.distributed')]:
    sys.modules[name] = None
torch.distributed = sys.modules['torch.distributed'] = types.SimpleNamespace(is_available=lambda: False)
import mmseg_inceptionnext.models
model = mmseg_inceptionnext.models.InceptionNeXt('atto').eval()
assert model(torch.zeros(1, 3, 64, 64))[3].shape == (1, 320, 2, 2)
'''
    run_tool('-c', code)
