from .base import MetaNeXtBase
from .blocks import MetaNeXtBlock
from .inceptionnext import InceptionNeXt
from .isotropic import IsotropicMetaNeXt
from .metanext import MetaNeXt
from .token_mixers import InceptionDWConv2d, PartialDWConv2d, SelfAttention2d

__all__ = [
    'InceptionDWConv2d', 'InceptionNeXt', 'IsotropicMetaNeXt', 'MetaNeXt', 'MetaNeXtBase', 'MetaNeXtBlock',
    'PartialDWConv2d', 'SelfAttention2d'
]
