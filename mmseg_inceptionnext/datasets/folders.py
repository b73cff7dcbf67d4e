"""A dataset that says which folder it misses and where to get it."""
from typing import List

from mmengine.fileio import isdir
from mmseg.datasets import BaseSegDataset

from mmseg_inceptionnext.engine.reproducible import Draw, seed_everything


class MissingDatasetError(FileNotFoundError):
    """A folder of the dataset is missing or empty; the message says where the data is published."""


class FolderDataset(BaseSegDataset):
    """``BaseSegDataset`` whose missing folders and empty lists end in one clear message.

    Subclasses say in ``SOURCE`` where the data is published and how it is laid out.
    """

    SOURCE = ''

    def load_data_list(self) -> List[dict]:
        """Lists the pairs of image and annotation.

        Raises:
            MissingDatasetError: if a folder is missing or holds no image with ``img_suffix``.
        """
        for folder in filter(None, self.data_prefix.values()):
            if not isdir(folder, backend_args=self.backend_args):
                raise MissingDatasetError(self._message(f'{folder} is not a folder'))
        data_list = super().load_data_list()
        if not data_list:
            raise MissingDatasetError(
                self._message(f'{self.data_prefix["img_path"]} holds no file that ends in {self.img_suffix}'))
        return data_list

    def prepare_data(self, idx: int) -> dict:
        """Loads and augments a sample, with the randomness of its place in the run if ``ResumableSampler`` drew it."""
        if isinstance(idx, Draw):
            seed_everything(idx.seed)
        return super().prepare_data(idx)

    def _message(self, problem: str) -> str:
        return (f'{type(self).__name__}: {problem}\n'
                f'{self.SOURCE}\n'
                f'If the data lies elsewhere, give its folder: --cfg-options data_root=DIR (now {self.data_root})\n'
                'To try the plugin without it: python tools/make_toy_ade20k.py, then '
                'python tools/train.py configs/fpn_inceptionnext_a_toy.py')
