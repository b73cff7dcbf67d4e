from .ade20k import ADEChallengeDataset
from .camvid import CamVidDataset
from .check import check_dataset
from .toy_ade20k import make_toy_ade20k
from .transforms import CheckLabels

__all__ = ['ADEChallengeDataset', 'CamVidDataset', 'CheckLabels', 'check_dataset', 'make_toy_ade20k']
