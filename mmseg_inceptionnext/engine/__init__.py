from .atomic import AtomicCheckpointHook, choose_checkpoint
from .checkpoint import check_segmentor
from .embedded_config import embedded_config, guarded_build
from .errors import ConfigError, NonFiniteLossError
from .fused import fuse_optimizer
from .hooks import BatchSizeHook, PerClassMetricsHook, SkippedSamplesHook
from .match_batch import match_batch
from .mixed_precision import AutocastOptimWrapper, check_autocast
from .nonfinite import NonFiniteLossHook
from .optim import LayerDecayOptimWrapperConstructor
from .pretrained import load_pretrained
from .reproducible import ResumableSampler
from .runner import CPURunner, build_runner, end_processes
from .safe_reading import CheckpointError, UnsafeCheckpointError, safe_checkpoints
from .sources import load_source

__all__ = [
    'AtomicCheckpointHook', 'AutocastOptimWrapper', 'BatchSizeHook', 'CPURunner', 'CheckpointError', 'ConfigError',
    'LayerDecayOptimWrapperConstructor', 'NonFiniteLossError', 'NonFiniteLossHook', 'PerClassMetricsHook',
    'ResumableSampler', 'SkippedSamplesHook', 'UnsafeCheckpointError', 'build_runner',
    'check_autocast', 'check_segmentor', 'choose_checkpoint', 'embedded_config', 'end_processes', 'fuse_optimizer',
    'guarded_build', 'load_pretrained', 'load_source', 'match_batch', 'safe_checkpoints'
]
