from .infer import Summary, infer
from .outputs import Output
from .segmenter import SegmentationResult, Segmenter

__all__ = ['Output', 'SegmentationResult', 'Segmenter', 'Summary', 'infer']
