from .checkpoint import load_pretrained
from .hooks import BatchSizeHook
from .runner import CPURunner, build_runner

__all__ = ['BatchSizeHook', 'CPURunner', 'build_runner', 'load_pretrained']
