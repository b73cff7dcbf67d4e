"""A dataset that names what is missing or broken in it."""
import logging
import os.path as osp
from collections import Counter
from typing import Any, Dict, Iterator, List, Tuple

import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.fileio import isdir, list_dir_or_file
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from mmseg_inceptionnext.errors import BrokenSampleError, InputError, MissingDatasetError, SampleError

from .files import CHECKED, broken, why_unreadable
from .seeding import Draw, seed_everything

LOADERS = {LoadImageFromFile: 'img_path', LoadAnnotations: 'seg_map_path'}
MOST_REPLACEMENTS = 100  # broken samples in a row after which the data, and not a sample, is broken


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """``BaseSegDataset`` that says what is missing or broken in one clear message.

    Missing folders and empty lists raise :class:`MissingDatasetError`. A file that is missing, cut off or damaged
    raises :class:`BrokenSampleError`, also where a decoder would make up the rest of it; MMSegmentation's own
    ``LoadImageFromFile`` and ``LoadAnnotations`` check what they read. Samples carry ``num_classes`` and
    ``ignore_index`` for ``CheckLabels``. Subclasses say in ``SOURCE`` where the data is published and how it is laid
    out.

    Args:
        on_error: ``raise``, or ``skip``: a sample with a broken file is replaced by the next good one, so that
            the same index always gives the same sample. It is logged, and counted for ``SkippedSamplesHook``. For
            training only: an evaluation would count the next image twice.
        **kwargs: the arguments of ``BaseSegDataset``.

    Raises:
        ValueError: if ``on_error`` is none of these, or ``skip`` with ``test_mode``.
    """

    SOURCE = ''
    takes_seeds = True  # from Draw

    def __init__(self, on_error: str = 'raise', **kwargs) -> None:
        if on_error not in ('raise', 'skip'):
            raise InputError(f"on_error={on_error!r}: allowed are 'raise' and 'skip'")
        if on_error == 'skip' and kwargs.get('test_mode'):
            raise InputError("on_error='skip' is for training: an evaluation must see each image once")
        self.on_error = on_error
        super().__init__(**kwargs)
        for key, loader in _loaders(self.pipeline):
            if not getattr(loader, 'file_client_args', None) and (loader.backend_args or {}).get('backend') != CHECKED:
                loader.backend_args = dict(
                    backend=CHECKED, backend_args=loader.backend_args, is_label=key == 'seg_map_path')

    def full_init(self) -> None:
        """Lists the samples; see ``BaseDataset``."""
        if self._fully_initialized:
            return
        super().full_init()
        if self.on_error == 'skip':
            # How often each sample was skipped. In shared memory, as every worker process has a copy of the dataset.
            self._skipped = torch.zeros(len(self), dtype=torch.int32).share_memory_()

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
            raise MissingDatasetError(self._message(self._why_empty()))
        return data_list

    def _why_empty(self) -> str:
        if self.ann_file:
            return f'{self.ann_file} names no image'
        folder = self.data_prefix['img_path']
        ends = Counter(osp.splitext(name)[1] or 'no suffix' for name in list_dir_or_file(
            folder, list_dir=False, recursive=True, backend_args=self.backend_args))
        there = ', '.join(f'{count} in {end}' for end, count in ends.most_common(5)) or 'no files'
        return f'{folder} holds no file that ends in {self.img_suffix}, which is img_suffix; there are {there}'

    def get_data_info(self, idx: int) -> dict:
        """The paths of a sample and what ``CheckLabels`` must know about it."""
        classes = self._metainfo.get('classes')
        return dict(super().get_data_info(idx), num_classes=len(classes) if classes else None,
                    ignore_index=self.ignore_index)

    def prepare_data(self, idx: int) -> Any:
        """A sample after the pipeline, or with ``on_error='skip'`` the next good one.

        If ``ResumableSampler`` drew it, its randomness is that of the place in the run.

        Raises:
            BrokenSampleError: if a file is broken, or with ``on_error='skip'`` those of many samples in a row.
            LabelError: if a label does not fit the image or the settings of the dataset.
        """
        tries = min(len(self), MOST_REPLACEMENTS)
        for step in range(tries):
            candidate = (idx + step) % len(self)
            if isinstance(idx, Draw):
                seed_everything(idx.seed)
            try:
                return self._load(candidate)
            except BrokenSampleError as error:
                if self.on_error == 'raise':
                    raise
                if not self._skipped[candidate]:
                    print_log(f'skipped: {error}', logger='current', level=logging.WARNING)
                self._skipped[candidate] += 1
        raise BrokenSampleError(f'{tries} samples in a row are broken, the last of them '
                                f'{self.get_data_info(candidate)["img_path"]}: python tools/check_dataset.py CONFIG '
                                'says what is wrong with each')

    def _load(self, idx: int) -> Any:
        info = self.get_data_info(idx)
        try:
            return self.pipeline(info)
        except SampleError:
            raise
        except Exception as error:  # decoders have errors of all kinds, and name no file
            for key, loader in _loaders(self.pipeline):
                problem = why_unreadable(info[key], loader)
                if problem:
                    raise broken(info[key], problem) from error
            raise

    def skipped_samples(self) -> Dict[str, int]:
        """How often each broken sample was replaced in this process and its workers, by the path of its image."""
        if self.on_error == 'raise' or not self._fully_initialized:
            return {}
        return {self.get_data_info(idx)['img_path']: int(self._skipped[idx])
                for idx in self._skipped.nonzero().flatten().tolist()}

    def _message(self, problem: str) -> str:
        return (f'{type(self).__name__}: {problem}\n'
                f'{self.SOURCE}\n'
                f'If the data lies elsewhere, give its folder: --cfg-options data_root=DIR (now {self.data_root})\n'
                'To try the plugin without it: python tools/make_toy_ade20k.py, then '
                'python tools/train.py configs/fpn_inceptionnext_a_toy.py')


def loaders(pipeline: Any) -> Dict[str, BaseTransform]:
    """The steps of a pipeline that read files in MMSegmentation's own way, by the key of the path that they read."""
    return dict(_loaders(pipeline))


def _loaders(pipeline: Any) -> Iterator[Tuple[str, BaseTransform]]:
    if type(pipeline) in LOADERS:
        yield LOADERS[type(pipeline)], pipeline
    for name in ('transforms', 'subroutines'):  # of Compose and of the wrappers of transforms, as TestTimeAug
        for step in getattr(pipeline, name, None) or ():
            yield from _loaders(step)
