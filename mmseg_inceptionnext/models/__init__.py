from .backbones import InceptionDWConv2d, InceptionNeXt, MetaNeXt

__all__ = ['InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt']
