from .checkpoints import check_checkpoint, publish_checkpoint
from .complexity import count_complexity
from .config import ConfigError, load_config
from .infer import infer
from .run import test, train
from .seeds import seeds_table, train_seeds
from .segmenter import SegmentationResult, Segmenter

__all__ = [
    'ConfigError', 'SegmentationResult', 'Segmenter', 'check_checkpoint', 'count_complexity', 'infer', 'load_config',
    'publish_checkpoint', 'seeds_table', 'test', 'train', 'train_seeds'
]
