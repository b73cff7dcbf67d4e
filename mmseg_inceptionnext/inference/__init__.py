from mmseg_inceptionnext.moved import moved_from

from .infer import Summary, infer
from .outputs import ResultWriter, SegmentationResult
from .segmenter import Segmenter

__all__ = ['ResultWriter', 'SegmentationResult', 'Segmenter', 'Summary', 'infer']
__getattr__ = moved_from('inference')
