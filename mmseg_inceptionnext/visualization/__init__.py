"""Now in ``mmseg_inceptionnext.analysis``."""
from mmseg_inceptionnext.moved import moved_from

__getattr__ = moved_from('visualization')
