from .infer import Summary, infer
from .outputs import Output
from .result import SegmentationResult
from .segmenter import Segmenter

__all__ = ['Output', 'SegmentationResult', 'Segmenter', 'Summary', 'infer']
