import warnings

from .checkpoints import check_checkpoint, publish_checkpoint
from .evaluate import evaluate
from .run import train
from .seeds import seeds_table, train_seeds

__all__ = ['check_checkpoint', 'evaluate', 'publish_checkpoint', 'seeds_table', 'train', 'train_seeds']


def __getattr__(name: str):
    if name == 'test':
        warnings.warn('mmseg_inceptionnext.apis.test is called evaluate now', DeprecationWarning, stacklevel=2)
        return evaluate
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
