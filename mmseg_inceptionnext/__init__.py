"""InceptionNeXt for MMSegmentation. Importing this package registers its classes."""
from .stack import check_stack, quiet_imports
from .version import __version__

with quiet_imports():
    check_stack()
    from mmengine.fileio import FileClient, LocalBackend

    from . import datasets, engine, evaluation, models  # noqa: F401 (registers the classes)
    from .inference import Segmenter
    from .models import fuse

# MMEngine's own default for 'disk' is HardDiskBackend, an alias that logs that it is deprecated.
FileClient.register_backend('disk', LocalBackend, force=True)

__all__ = ['Segmenter', '__version__', 'fuse']
