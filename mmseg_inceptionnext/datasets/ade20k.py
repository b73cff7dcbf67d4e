"""ADE20K as the scene parsing challenge published it."""
import os.path as osp
from glob import escape, glob, iglob
from typing import Optional

from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from .folders import FolderDataset

# What the releases of the full ADE20K hold: the first two of 2021, the others of 2016.
FULL_ARCHIVE = ('images/ADE', 'index_ade20k.pkl', 'images/training/*/*_seg.png', 'images/training/*/*/*_seg.png')


@DATASETS.register_module()
class ADEChallengeDataset(FolderDataset, ADE20KDataset):
    """MMSegmentation's ``ADE20KDataset`` (150 classes, annotation 0 is ignored) with an answer when it is missing.

    Takes the arguments of ``ADE20KDataset``, and ``on_error`` of :class:`FolderDataset`.
    """

    SOURCE = ('data_root should hold images/training, images/validation (*.jpg), annotations/training and '
              'annotations/validation (*.png: 0 other, 1 to 150 the classes).\n'
              'The archive with this layout is ADEChallengeData2016.zip (not the full ADE20K), published at '
              'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip')

    def _message(self, problem: str) -> str:
        return super()._message('\n'.join(filter(None, [problem, find_full_archive(self.data_root)])))


def find_full_archive(data_root: Optional[str]) -> Optional[str]:
    """Says that ``data_root``, or a folder in it or beside it, is the full ADE20K, whose labels are in colours."""
    root = osp.abspath(data_root or '.')
    near = [glob(osp.join(escape(folder), 'ADE20K_20*')) for folder in (root, osp.dirname(root))]
    for folder in (root, *sorted(sum(near, []))):
        for sign in FULL_ARCHIVE:
            found = next(iglob(osp.join(escape(folder), sign)), None)
            if found:
                return (f'{folder} is the full ADE20K (it holds {osp.relpath(found, folder)}), whose labels are in '
                        'colours and of thousands of classes. The 150 classes are in ADEChallengeData2016.zip')
    return None
