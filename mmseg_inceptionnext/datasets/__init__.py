from .ade20k import ADEChallengeDataset
from .camvid import CamVidDataset
from .folders import MissingDatasetError
from .toy_ade20k import make_toy_ade20k

__all__ = ['ADEChallengeDataset', 'CamVidDataset', 'MissingDatasetError', 'make_toy_ade20k']
