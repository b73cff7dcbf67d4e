from .checkpoint import PretrainedError, load_pretrained
from .hooks import BatchSizeHook
from .runner import CPURunner, build_runner

__all__ = ['BatchSizeHook', 'CPURunner', 'PretrainedError', 'build_runner', 'load_pretrained']
