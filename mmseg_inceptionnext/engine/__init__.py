from .checkpoint import check_segmentor
from .embedded_config import guarded_build, parse_embedded_config
from .hooks import BatchSizeHook, PerClassMetricsHook
from .pretrained import load_pretrained
from .runner import CPURunner, build_runner
from .safe_reading import CheckpointError, UnsafeCheckpointError, trusting
from .sources import load_source, safe_checkpoints

__all__ = [
    'BatchSizeHook', 'CPURunner', 'CheckpointError', 'PerClassMetricsHook', 'UnsafeCheckpointError', 'build_runner',
    'check_segmentor', 'guarded_build', 'load_pretrained', 'load_source', 'parse_embedded_config', 'safe_checkpoints',
    'trusting'
]
