from .infer import infer
from .segmenter import SegmentationResult, Segmenter

__all__ = ['SegmentationResult', 'Segmenter', 'infer']
