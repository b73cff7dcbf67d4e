from . import patches  # noqa: F401  by which MMEngine reads checkpoints as data
from .compare import check_segmentor
from .embedded_config import embedded_config, guarded_build
from .files import choose_checkpoint, write_atomically
from .safe_reading import safe_checkpoints
from .sources import load_source

__all__ = [
    'check_segmentor', 'choose_checkpoint', 'embedded_config', 'guarded_build', 'load_source', 'safe_checkpoints',
    'write_atomically'
]
