from .checkpoints import check_checkpoint, publish_checkpoint
from .evaluate import test
from .run import train
from .seeds import seeds_table, train_seeds

__all__ = ['check_checkpoint', 'publish_checkpoint', 'seeds_table', 'test', 'train', 'train_seeds']
