from .infer import Summary, infer
from .outputs import ResultWriter, SegmentationResult
from .segmenter import Segmenter

__all__ = ['ResultWriter', 'SegmentationResult', 'Segmenter', 'Summary', 'infer']
