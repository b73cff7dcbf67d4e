"""Checks that the libraries this plugin stands on are there and fit together; imports none of them at the top."""
import importlib
import io
import os
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from typing import Dict, Iterator, List, NamedTuple, Optional

from packaging.requirements import Requirement

REQUIREMENTS = {  # what is imported, and the versions tested of each distribution that provides it
    'torch': ['torch>=2.1'],
    'torchvision': ['torchvision>=0.16'],
    'timm': ['timm>=1.0.15'],
    'mmengine': ['onedl-mmengine>=0.10.12', 'mmengine>=0.10,<0.11'],
    'mmcv': ['onedl-mmcv>=2.3.6', 'mmcv>=2.0,<2.2', 'mmcv-lite>=2.0,<2.2'],
    'mmseg.models': ['onedl-mmsegmentation>=1.4.2', 'mmsegmentation>=1.2,<1.3'],  # not mmseg, which takes any mmcv
}
INSTALL = {
    'onedl': 'pip install ' + ' '.join(f'"{tested[0]}"' for tested in REQUIREMENTS.values()),
    'openmmlab': 'pip install "torch==2.1.2" "torchvision==0.16.2" "numpy<2" "setuptools<80" wheel ninja '
                 '"timm>=1.0.15" "mmengine>=0.10,<0.11" "mmsegmentation==1.2.2" ftfy regex && '
                 'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir "mmcv>=2.0,<2.2"',
}
NO_OPERATORS = ('mmsegmentation needs mmcv with its compiled operators, compiled against the torch that is installed; '
                'mmcv-lite has none')
NOISE = ('Could not import OneDL', )  # printed by onedl-mmsegmentation
WARNINGS = ('Fail to import ``MultiScaleDeformableAttention``', 'Default ``avg_non_ignore`` is False')


class Finding(NamedTuple):
    """What was found for a module: versions by distribution, what does not fit, and why it does not import."""
    module: str
    installed: Dict[str, str]
    problem: str
    error: Optional[Exception]

    def __str__(self) -> str:
        found = ', '.join(f'{name} {version}' for name, version in self.installed.items()) or 'not installed'
        return f'{self.module.split(".")[0]:11} {found}' + (f': {self.problem}' if self.problem else '')


def inspect_stack() -> List[Finding]:
    """Looks each requirement up, by the versions installed and by importing it."""
    return [_inspect(module, list(map(Requirement, tested))) for module, tested in REQUIREMENTS.items()]


def _inspect(module: str, tested: List[Requirement]) -> Finding:
    installed = {r.name: version for r in tested if (version := _version(r.name))}
    needed = ' or '.join(map(str, tested))
    problem, error = '', None
    if len(installed) > 1:
        problem = 'two packages write the same files'
    elif any(not r.specifier.contains(installed[r.name], prereleases=True) for r in tested if r.name in installed):
        problem = f'tested with {needed}'
    try:
        importlib.import_module(module)
    except Exception as raised:  # a broken binary raises anything: ImportError, OSError, AssertionError
        error, text = raised, next(iter(str(raised).splitlines()), '')
        problem = f'does not import: {type(error).__name__}: {text}' if installed else f'needs {needed}'
        if any(part in text for part in ('mmcv.ops', 'mmcv._ext', 'mmcv/_ext')):
            problem += f': {NO_OPERATORS}'
    return Finding(module, installed, problem, error)


def _version(distribution: str) -> Optional[str]:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def fix_command(findings: List[Finding]) -> str:
    """The one command that installs a stack that fits, of the distribution that is there already."""
    libraries = [finding for finding in findings if finding.module.startswith('mm') and finding.installed]
    names = [name for finding in libraries for name in finding.installed]
    onedl = sum(name.startswith('onedl') for name in names)
    openmmlab = bool(names) and not onedl or sys.version_info < (3, 10)  # the onedl packages need Python 3.10
    in_the_way = 0 < onedl < len(names) or any(finding.problem for finding in libraries)
    uninstall = f'pip uninstall -y {" ".join(names)} && ' if in_the_way else ''
    return uninstall + INSTALL['openmmlab' if openmmlab else 'onedl']


def check_stack() -> None:
    """Warns of versions that were not tested.

    Raises:
        ImportError: if a library does not import; says what is needed, and the command that installs it.
    """
    findings = inspect_stack()
    problems = [f'  {finding}' for finding in findings if finding.problem]
    fix = f'This installs what it was tested with:\n  {fix_command(findings)}'
    errors = [finding.error for finding in findings if finding.error]
    if errors:
        raise ImportError('\n'.join(['mmseg_inceptionnext cannot run on what is installed here:', *problems, fix])
                          ) from errors[0]
    if problems:
        warnings.warn('\n'.join(['mmseg_inceptionnext was not tested on what is installed here:', *problems, fix]),
                      stacklevel=2)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Leaves out the known lines that libraries print on import, and warn of; the others go to standard error."""
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')  # OpenCV 5 warns of each tag of each GeoTIFF that it reads
    for words in WARNINGS:
        warnings.filterwarnings('ignore', words)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line not in NOISE:
                print(line, file=sys.stderr)
