"""Makes a sentence of an error that a setting led to, and leaves the others their tracebacks."""
import linecache
import os
import re
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Tuple

import torch

from mmseg_inceptionnext.errors import ConfigError, UserError

PACKAGE = str(Path(__file__).resolve().parents[2])


def _place(error: BaseException) -> Tuple[str, int]:
    """File and line where an error was raised, also in a process that loads data, whose traceback is in the text."""
    told = re.findall(r'^ *File "(.+?)", line (\d+)', str(error), re.MULTILINE)
    found = told or [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return (found[-1][0], int(found[-1][1])) if found else ('', 0)


def in_a_line(error: BaseException) -> str:
    """Type and text of an error, and where it was raised."""
    lines, (file, number) = str(error).strip().splitlines() or [''], _place(error)
    said = ' '.join(lines) or linecache.getline(file, number).strip()  # an assert without a message has no text
    text = lines[-1] if lines[0].startswith('Caught ') else f'{type(error).__name__}: {said}'
    return f'{text:.300} ({Path(file).name}, line {number})'


def keeps_traceback(error: Exception) -> bool:
    """Whether an error is not to be explained by settings: the user's, a file's, of lost processes or memory, ours."""
    return (isinstance(error, (UserError, torch.cuda.OutOfMemoryError))
            or isinstance(error, OSError) and error.errno is not None
            or str(error).startswith('DataLoader worker (pid')
            or str(Path(_place(error)[0]).resolve()).startswith(PACKAGE + os.sep))


@contextmanager
def built_from(name: str) -> Iterator[None]:
    """Raises a ConfigError that names the settings from which something could not be built."""
    try:
        yield
    except Exception as error:  # every class has its own errors for settings that it does not know
        if keeps_traceback(error):
            raise
        raise ConfigError(f'{name} cannot be used: {in_a_line(error)}') from error
