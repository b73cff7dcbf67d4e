from .inceptionnext import InceptionNeXt
from .isotropic import IsotropicMetaNeXt
from .metanext import MetaNeXt, MetaNeXtBase, MetaNeXtBlock
from .normed_timm_backbone import NormedTIMMBackbone
from .token_mixers import InceptionDWConv2d, PartialDWConv2d, SelfAttention2d

__all__ = [
    'InceptionDWConv2d', 'InceptionNeXt', 'IsotropicMetaNeXt', 'MetaNeXt', 'MetaNeXtBase', 'MetaNeXtBlock',
    'NormedTIMMBackbone', 'PartialDWConv2d', 'SelfAttention2d'
]
