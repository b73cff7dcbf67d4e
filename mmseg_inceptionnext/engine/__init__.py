from .checkpoint import load_pretrained
from .hooks import BatchSizeHook

__all__ = ['BatchSizeHook', 'load_pretrained']
