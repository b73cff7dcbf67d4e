"""ADE20K as the scene parsing challenge published it."""
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from .folders import FolderDataset


@DATASETS.register_module()
class ADEChallengeDataset(FolderDataset, ADE20KDataset):
    """MMSegmentation's ``ADE20KDataset`` (150 classes, annotation 0 is ignored) with an answer when it is missing.

    Takes the arguments of ``ADE20KDataset``.
    """

    SOURCE = ('data_root should hold images/training, images/validation (*.jpg), annotations/training and '
              'annotations/validation (*.png: 0 other, 1 to 150 the classes).\n'
              'The archive with this layout is ADEChallengeData2016.zip (not the full ADE20K), published at '
              'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip')
