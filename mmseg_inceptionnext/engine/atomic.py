"""Now in ``mmseg_inceptionnext.checkpoints.files``."""
from mmseg_inceptionnext.moved import moved_from

__getattr__ = moved_from('engine.atomic')
