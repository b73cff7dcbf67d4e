from importlib import import_module
from pkgutil import iter_modules

from mmseg_inceptionnext.moved import moved_from

from .ade20k import ADEChallengeDataset
from .camvid import CamVidDataset
from .check import check_dataset
from .toy_ade20k import make_toy_ade20k, make_toy_crops
from .transforms import CheckLabels

for _module in iter_modules(__path__):  # so that a data set needs no line here to be registered
    import_module(f'{__name__}.{_module.name}')

__all__ = [
    'ADEChallengeDataset', 'CamVidDataset', 'CheckLabels', 'check_dataset', 'make_toy_ade20k', 'make_toy_crops'
]
__getattr__ = moved_from('datasets')
