from mmseg_inceptionnext.moved import moved_from

from .infer import Summary, infer
from .outputs import ResultWriter, SegmentationResult
from .rasters import Windows
from .segmenter import Segmenter

__all__ = ['ResultWriter', 'SegmentationResult', 'Segmenter', 'Summary', 'Windows', 'infer']
__getattr__ = moved_from('inference')
