"""Checks that the libraries this plugin stands on are there and fit together.

Imports nothing of them at the top, so that it can report on a broken installation.
"""
import importlib
import platform
import sys
from importlib import metadata
from typing import Dict, List, NamedTuple, Optional, Tuple

from packaging.version import Version

INSTALL = {
    'onedl': 'pip install "torch>=2.1" torchvision "timm>=1.0.15" "onedl-mmengine>=0.10.12" "onedl-mmcv>=2.3.6" '
             '"onedl-mmsegmentation>=1.4.2"',
    'openmmlab': 'pip install "torch==2.1.2" "torchvision==0.16.2" "numpy<2" "setuptools<80" wheel ninja '
                 '"timm>=1.0.15" "mmengine>=0.10,<0.11" "mmsegmentation==1.2.2" ftfy regex && '
                 'MMCV_WITH_OPS=1 pip install --no-build-isolation "mmcv>=2.0,<2.2"',
}

TWO_PACKAGES = 'two packages write the same files'
NO_OPERATORS = ('mmsegmentation needs mmcv with its compiled operators, compiled against the torch that is installed; '
                'mmcv-lite has none')
PROBES = {'mmseg': 'mmseg.models'}  # modules that import more than the package itself does: mmcv.ops, for one


class Requirement(NamedTuple):
    """An import name, and the versions that fit of each distribution that provides it."""
    module: str
    distributions: Dict[str, Tuple[str, Optional[str]]]  # name -> (at least, below)


REQUIREMENTS = (
    Requirement('torch', {'torch': ('2.1', None)}),
    Requirement('torchvision', {'torchvision': ('0.16', None)}),
    Requirement('timm', {'timm': ('1.0.15', None)}),
    Requirement('mmengine', {'onedl-mmengine': ('0.10.12', None), 'mmengine': ('0.10', '0.11')}),
    Requirement('mmcv', {'onedl-mmcv': ('2.3.6', None), 'mmcv': ('2.0', '2.2'), 'mmcv-lite': ('2.0', '2.2')}),
    Requirement('mmseg', {'onedl-mmsegmentation': ('1.4.2', None), 'mmsegmentation': ('1.2', '1.3')}),
)


class Finding(NamedTuple):
    """What was found for one requirement; ``problem`` is empty when it fits."""
    module: str
    found: str
    problem: str


def inspect_stack() -> List[Finding]:
    """Looks each requirement up, by the versions installed and by importing it."""
    return [_inspect(requirement) for requirement in REQUIREMENTS]


def _inspect(requirement: Requirement) -> Finding:
    installed = {name: version for name in requirement.distributions if (version := _version(name))}
    needed = ' or '.join(f'{name} {_range(*bounds)}' for name, bounds in requirement.distributions.items())
    found = ', '.join(f'{name} {version}' for name, version in installed.items())
    problem = ''
    if not installed:
        problem = f'not installed, needs {needed}'
    elif len(installed) > 1:
        problem = f'{TWO_PACKAGES}: uninstall both ("pip uninstall {" ".join(installed)}") first'
    elif not all(_fits(version, *requirement.distributions[name]) for name, version in installed.items()):
        problem = f'needs {needed}'
    else:
        try:
            importlib.import_module(PROBES.get(requirement.module, requirement.module))
        except Exception as error:  # a broken binary raises anything: ImportError, OSError, AssertionError
            problem = f'does not import: {type(error).__name__}: {next(iter(str(error).splitlines()), "")}'
            if any(name in problem for name in ('mmcv.ops', 'mmcv._ext', 'mmcv/_ext')):
                problem += f': {NO_OPERATORS}'
    return Finding(requirement.module, found or 'not installed', problem)


def _version(distribution: str) -> Optional[str]:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, at_least: str, below: Optional[str]) -> bool:
    return Version(version) >= Version(at_least) and (below is None or Version(version) < Version(below))


def _range(at_least: str, below: Optional[str]) -> str:
    return f'>={at_least}' + (f',<{below}' if below else '')


def fix_command(findings: List[Finding]) -> str:
    """The one command that installs a stack that fits, of the distribution that is there already."""
    installed = [part.split()[0] for finding in findings if finding.module.startswith('mm')
                 for part in finding.found.split(', ') if finding.found != 'not installed']
    onedl = [name for name in installed if name.startswith('onedl')]
    openmmlab = bool(installed) and not onedl or sys.version_info < (3, 10)  # the onedl packages need Python 3.10
    install = INSTALL['openmmlab' if openmmlab else 'onedl']
    if any(TWO_PACKAGES in finding.problem for finding in findings):
        remove = installed
    elif openmmlab and 'mmcv' in installed and any(NO_OPERATORS in finding.problem for finding in findings):
        remove = ['mmcv']  # and not the same wheel again, which pip keeps
        install = install.replace('--no-build-isolation', '--no-build-isolation --no-cache-dir')
    elif openmmlab:
        remove = onedl + [name for name in installed if name == 'mmcv-lite']
    else:
        remove = [name for name in installed if name not in onedl]
    uninstall = f'pip uninstall -y {" ".join(remove)} && ' if remove else ''
    return uninstall + install


def error_message(findings: List[Finding]) -> str:
    """What was found, what is needed, and the command that mends it; empty when everything fits."""
    broken = [finding for finding in findings if finding.problem]
    if not broken:
        return ''
    lines = [f'  {finding.module}: {finding.found}: {finding.problem}' for finding in broken]
    return '\n'.join(['mmseg_inceptionnext cannot run on what is installed here:', *lines, 'This mends it:',
                      f'  {fix_command(findings)}'])


def report() -> Tuple[str, bool]:
    """The text that ``python -m mmseg_inceptionnext`` prints, and whether everything fits."""
    findings = inspect_stack()
    fits = not any(finding.problem for finding in findings)
    lines = [f'python      {platform.python_version()} ({platform.system()} {platform.machine()})']
    lines += [f'{f.module:11} {f.found}' + (f': {f.problem}' if f.problem else '') for f in findings]
    lines.append(f'devices     {_devices()}')
    lines.append('verdict     fits' if fits else f'verdict     does not fit. This mends it:\n  {fix_command(findings)}')
    return '\n'.join(lines), fits


def _devices() -> str:
    try:
        import torch
    except Exception:  # the report has named the reason on torch's own line
        return 'unknown, torch does not import'
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ', '.join([f'cpu ({torch.get_num_threads()} threads)', *gpus])
