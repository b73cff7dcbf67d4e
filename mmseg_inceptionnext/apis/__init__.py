from mmseg_inceptionnext.moved import moved_from

from .checkpoints import check_checkpoint, publish_checkpoint, publish_folder
from .evaluation import evaluate
from .run import train
from .seeds import seeds_table, train_seeds

__all__ = [
    'check_checkpoint', 'evaluate', 'publish_checkpoint', 'publish_folder', 'seeds_table', 'train', 'train_seeds'
]
__getattr__ = moved_from('apis')
