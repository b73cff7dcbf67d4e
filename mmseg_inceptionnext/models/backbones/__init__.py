from .inceptionnext import InceptionNeXt
from .metanext import MetaNeXt
from .token_mixers import InceptionDWConv2d

__all__ = ['InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt']
