from .checkpoint_hook import AtomicCheckpointHook
from .fused import fuse_optimizer
from .hooks import BatchSizeHook, PerClassMetricsHook, SkippedSamplesHook
from .match_batch import match_batch
from .mixed_precision import AutocastOptimWrapper, check_autocast
from .nonfinite import NonFiniteLossHook
from .optim import LayerDecayOptimWrapperConstructor
from .reproducible import ResumableSampler
from .runner import CPURunner, build_runner, end_processes

__all__ = [
    'AtomicCheckpointHook', 'AutocastOptimWrapper', 'BatchSizeHook', 'CPURunner', 'LayerDecayOptimWrapperConstructor',
    'NonFiniteLossHook', 'PerClassMetricsHook', 'ResumableSampler', 'SkippedSamplesHook', 'build_runner',
    'check_autocast', 'end_processes', 'fuse_optimizer', 'match_batch'
]
