from mmseg_inceptionnext.moved import moved_from

from .batch import BatchSizeHook, match_batch
from .checkpoint_hook import AtomicCheckpointHook
from .hooks import PerClassMetricsHook, SkippedSamplesHook
from .mixed_precision import AutocastOptimWrapper, check_autocast
from .nonfinite import NonFiniteLossHook
from .optim import LayerDecayOptimWrapperConstructor, fuse_optimizer
from .resume import ResumableSampler
from .runner import SegRunner, build_runner, end_processes

__all__ = [
    'AtomicCheckpointHook', 'AutocastOptimWrapper', 'BatchSizeHook', 'LayerDecayOptimWrapperConstructor',
    'NonFiniteLossHook', 'PerClassMetricsHook', 'ResumableSampler', 'SegRunner', 'SkippedSamplesHook', 'build_runner',
    'check_autocast', 'end_processes', 'fuse_optimizer', 'match_batch'
]
__getattr__ = moved_from('engine')
