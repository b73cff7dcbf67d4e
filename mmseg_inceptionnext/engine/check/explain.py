"""Makes a sentence of an error that a setting led to, and leaves the others their tracebacks."""
import linecache
import os
import re
import sysconfig
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import torch
from mmengine.registry import build_from_cfg
from mmengine.runner import Runner

from mmseg_inceptionnext.config_options import all_places
from mmseg_inceptionnext.errors import ConfigError, UserError
from mmseg_inceptionnext.parts import type_name

PACKAGE = str(Path(__file__).resolve().parents[2])
INSTALLED = ('<', PACKAGE + os.sep, *(sysconfig.get_path(kind) for kind in ('stdlib', 'purelib', 'platlib')))
CLONED = re.compile(r'[\\/](mmengine|mmcv|mmseg|mmdet|mmpretrain)[\\/]')  # packages that people install from clones


def _places(error: BaseException) -> List[Tuple[str, int]]:
    """Files and lines on the way to an error, also in a process that loads data, whose traceback is in the text."""
    told = re.findall(r'^ *File "(.+?)", line (\d+)', str(error), re.MULTILINE)
    found = told or [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return [(file, int(line)) for file, line in found] or [('', 0)]


def own_places(error: BaseException) -> List[Tuple[str, int]]:
    """Those of the user's own code, files and lines, on the way to an error."""
    return [place for place in _places(error) if place[0] and not place[0].startswith(INSTALLED)
            and not CLONED.search(place[0])]


def in_a_line(error: BaseException) -> str:
    """Type and text of an error, and where it was raised, and the last line before of the user's own code."""
    lines, places = str(error).strip().splitlines() or [''], _places(error)
    file, number = places[-1]
    own = own_places(error)
    called = f', called in {own[-1][0]}, line {own[-1][1]}' if own and own[-1] != places[-1] else ''
    said = ' '.join(lines) or linecache.getline(file, number).strip()  # an assert without a message has no text
    text = lines[-1] if lines[0].startswith('Caught ') else f'{type(error).__name__}: {said}'
    return f'{text:.300} ({file if own and not called else Path(file).name}, line {number}{called})'


def keeps_traceback(error: Exception) -> bool:
    """Whether an error is not to be explained by settings: the user's, a file's, of lost processes or memory, ours."""
    return (isinstance(error, (UserError, torch.cuda.OutOfMemoryError))
            or isinstance(error, OSError) and error.errno is not None
            or str(error).startswith('DataLoader worker (pid')
            or str(Path(_places(error)[-1][0]).resolve()).startswith(PACKAGE + os.sep))


@contextmanager
def built_from(name: str) -> Iterator[None]:
    """Raises a ConfigError that names the settings from which something could not be built."""
    try:
        yield
    except Exception as error:  # every class has its own errors for settings that it does not know
        if keeps_traceback(error):
            raise
        line = in_a_line(error)
        raise ConfigError(f'{_built(error, line) or name} cannot be used: {line}') from error


def _built(error: BaseException, line: str) -> str:
    """What was being built of a config when an error came: its name there, its type, and the settings it speaks of."""
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)
              if frame.f_code is build_from_cfg.__code__ or isinstance(frame.f_locals.get('self'), Runner)]
    configs = [found['self'].cfg for found in frames if hasattr(found.get('self'), 'cfg')]
    parts = [found['cfg'] for found in frames if 'self' not in found and isinstance(found['cfg'], dict)]
    for part in reversed(parts if configs else []):
        name = next((place for place, parent, key in all_places(configs[0]) if _is_made_of(part, parent[key])), None)
        if name:
            given = [f'{key}={value!r}' for key, value in part.items() if len(repr(value)) < 80 and
                     re.search(rf'\b{key.rstrip("s")}s?\b', line)]
            return f'{name}, {type_name(part)}{" with " * bool(given)}{", ".join(given)},'
    return ''


def _is_made_of(part: dict, settings: Any) -> bool:
    """Whether a part has some settings of a config, maybe beside others that were added."""
    return isinstance(settings, dict) and 'type' in settings and all(
        key in part and part[key] == value for key, value in settings.items())
