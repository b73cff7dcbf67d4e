from .checkpoints import check_checkpoint, publish_checkpoint
from .complexity import count_complexity
from .config import ConfigError, load_config
from .evaluate import test
from .protocol import PROTOCOLS, Protocol, apply_protocol
from .run import train
from .seeds import seeds_table, train_seeds

__all__ = [
    'PROTOCOLS', 'ConfigError', 'Protocol', 'apply_protocol', 'check_checkpoint',
    'count_complexity', 'load_config', 'publish_checkpoint', 'seeds_table', 'test', 'train', 'train_seeds'
]
