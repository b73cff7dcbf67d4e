"""InceptionNeXt for MMSegmentation. Importing this package registers its classes."""
import sys
from contextlib import redirect_stdout

from .stack import error_message, inspect_stack
from .version import __version__

_problem = error_message(inspect_stack())
# Python sets argv[0] to '-m' while it looks for the module: `python -m mmseg_inceptionnext` must reach its report.
if _problem and sys.argv[:1] != ['-m']:
    raise ImportError(_problem)
if not _problem:
    with redirect_stdout(sys.stderr):  # onedl-mmsegmentation prints lines on import; standard output is for results
        from . import datasets, engine, evaluation, models  # noqa: F401 (registers the classes)
        from .inference import Segmenter
        from .models import fuse

__all__ = ['Segmenter', '__version__', 'fuse']
