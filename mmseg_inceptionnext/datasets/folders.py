"""A dataset that names what is missing or broken in it."""
import logging
import os.path as osp
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.fileio import isdir, isfile, list_dir_or_file, list_from_file
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from mmseg_inceptionnext.errors import BrokenSampleError, ConfigError, InputError, MissingDatasetError, SampleError

from .files import CHECKED, broken, load, why_unreadable
from .label_table import Color, LabelTable, LoadLabels, use_table
from .pairing import (
    Suffix,
    by_stem,
    count_endings,
    find,
    looks_like_an_image,
    one_or_all,
    preferred,
    stem_of,
    suffixes_of,
)
from .seeding import Draw, seed_everything
from .steps import flat, is_of_libraries

LOADERS = {LoadImageFromFile: 'img_path', LoadAnnotations: 'seg_map_path', LoadLabels: 'seg_map_path'}
MOST_REPLACEMENTS = 100  # broken samples in a row after which the data, and not a sample, is broken
FIRST_LABELS = 20  # are looked at for the values of a mask


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """``BaseSegDataset`` that says what is missing or broken in one clear message.

    Missing folders and empty lists raise :class:`MissingDatasetError`. A file that is missing, cut off or damaged
    raises :class:`BrokenSampleError`, also where a decoder would make up the rest of it; MMSegmentation's own
    ``LoadImageFromFile`` and ``LoadAnnotations`` check what they read. Samples carry ``num_classes`` and
    ``ignore_index`` for ``CheckLabels``. Suffixes match in upper and lower case; images that none matches, and labels
    that leave only one class, are logged. Subclasses say in ``SOURCE`` where the data is published and how it is laid
    out.

    Args:
        on_error: ``raise``, or ``skip``: a sample with a broken file is replaced by the next good one, so that
            the same index always gives the same sample. It is logged, and counted for ``SkippedSamplesHook``. For
            training only: an evaluation would count the next image twice.
        img_suffix, seg_map_suffix: how the names of images and labels end, one suffix or several.
        classes, palette: as in ``metainfo``: the names of the classes, and a colour of each for pictures.
        label_map, colors: what the values or colours of label files are, see :class:`LabelTable`. By default values
            are class ids from 0.
        split_file, ann_file: the same: a file with the names of the images, one a line, with their suffix or not.
        metainfo, lazy_init, **kwargs: the arguments of ``BaseSegDataset``.

    Attributes:
        not_taken: the images in the folder that ``img_suffix`` leaves out, as a sentence, or None.

    Raises:
        ValueError: if ``on_error`` is none of these, or ``skip`` with ``test_mode``; or if a suffix is none.
    """

    SOURCE = ''
    takes_seeds = True  # from Draw

    def __init__(self, on_error: str = 'raise', img_suffix: Suffix = '.jpg', seg_map_suffix: Suffix = '.png',
                 classes: Optional[Sequence[str]] = None, palette: Optional[Sequence[Color]] = None,
                 label_map: Optional[Dict[int, int]] = None, colors: Optional[Sequence[Color]] = None,
                 split_file: str = '', ann_file: str = '', metainfo: Optional[dict] = None, lazy_init: bool = False,
                 **kwargs) -> None:
        if on_error not in ('raise', 'skip'):
            raise InputError(f"on_error={on_error!r}: allowed are 'raise' and 'skip'")
        if on_error == 'skip' and kwargs.get('test_mode'):
            raise InputError("on_error='skip' is for training: an evaluation must see each image once")
        self.on_error = on_error
        self.not_taken: Optional[str] = None
        given = dict(classes=classes, palette=palette or colors and list(colors)[:len(classes or colors)])
        metainfo = dict(metainfo or {}, **{key: value for key, value in given.items() if value is not None})
        super().__init__(
            img_suffix=one_or_all(img_suffix, 'img_suffix'), lazy_init=True, ann_file=split_file or ann_file,
            seg_map_suffix=one_or_all(seg_map_suffix, 'seg_map_suffix'), metainfo=metainfo, **kwargs)
        self.label_table = None
        if label_map is not None or colors is not None:
            self._take_table(label_map, colors)
        for _, loader in _loaders(self.pipeline):
            if not getattr(loader, 'file_client_args', None) and (loader.backend_args or {}).get('backend') != CHECKED:
                loader.backend_args = dict(
                    backend=CHECKED, backend_args=loader.backend_args,
                    label_decoder=(loader.imdecode_backend or 'cv2') if type(loader) is LoadAnnotations else None)
        if not lazy_init:  # else it is looked at, and not run
            self.full_init()
            for note in filter(None, (self.not_taken, None if self.test_mode else self._only_one_class())):
                print_log(note, logger='current', level=logging.WARNING)

    def _take_table(self, label_map: Optional[Dict[int, int]], colors: Optional[Sequence[Color]]) -> None:
        if self.reduce_zero_label or self.label_map is not None or not self._metainfo.get('classes'):
            raise InputError('label_map and colors say what each value of the labels is: give classes with them, and '
                             'neither reduce_zero_label nor a class of data sets with other classes')
        self.label_table = LabelTable(len(self._metainfo['classes']), label_map, colors, self.ignore_index)
        self._metainfo['label_values'] = self.label_table.values
        use_table(self.pipeline, self.label_table)

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
            InputError: if two files may be the image of a label, or the label of an image.
            ConfigError: if ``data_prefix`` names no folder of images.
        """
        for folder in filter(None, self.data_prefix.values()):
            if not isdir(folder, backend_args=self.backend_args):
                raise MissingDatasetError(self._message(f'{folder} is not a folder'))
        stock = super().load_data_list
        data_list = self._pairs() if stock.__func__ is BaseSegDataset.load_data_list else stock()
        if not data_list:
            raise MissingDatasetError(self._message(self._why_empty()))
        return data_list

    def _pairs(self) -> List[dict]:
        """As ``BaseSegDataset.load_data_list``, in the same order, for several suffixes and names of either case."""
        if 'img_path' not in self.data_prefix:
            raise ConfigError(f'{type(self).__name__}: data_prefix={self.data_prefix!r} has no img_path: add the '
                              'folder of the images')
        folder, suffixes = self.data_prefix['img_path'], suffixes_of(self.img_suffix, 'img_suffix')
        is_listed = bool(self.ann_file) and not osp.isdir(self.ann_file)
        found = self._listed(folder, suffixes) if is_listed else self._in_folder(folder, suffixes)
        label_folder, ends = self.data_prefix.get('seg_map_path'), suffixes_of(self.seg_map_suffix, 'seg_map_suffix')
        labels = {} if label_folder is None else find(label_folder, (stem for stem, _ in found), ends,
                                                      self.backend_args)
        samples = []
        for stem, names in found:
            names, of_stem = preferred(names, suffixes), preferred(labels.get(stem, []), ends)
            if len(names) > 1 and of_stem:
                raise _two_files(folder, names, f'the label {of_stem[0]}', 'img_suffix')
            if len(of_stem) > 1:
                raise _two_files(label_folder, of_stem, f'the image {names[0]}', 'seg_map_suffix')
            for name in names[:1] if is_listed else names:
                sample = dict(img_path=osp.join(folder, name), label_map=self.label_map,
                              reduce_zero_label=self.reduce_zero_label, seg_fields=[])
                if label_folder is not None:
                    sample['seg_map_path'] = osp.join(label_folder, of_stem[0] if of_stem else stem + ends[0])
                samples.append(sample)
        return samples if is_listed else sorted(samples, key=lambda sample: sample['img_path'])

    def _in_folder(self, folder: str, suffixes: Tuple[str, ...]) -> List[Tuple[str, List[str]]]:
        """The stem of each image in a folder and its subfolders, and the names that have it."""
        names = [name for name in self._names(folder) if not self._is_label(folder, name, suffixes)
                 and not name.startswith('.') and f'{osp.sep}.' not in name]  # .ipynb_checkpoints
        found = by_stem(names, suffixes)
        taken = {name for same in found.values() for name in preferred(same, suffixes)}
        left = [name for name in names if name not in taken and looks_like_an_image(name)]
        if left:
            self.not_taken = (f'{folder}: {len(left)} images are not taken, as img_suffix={self.img_suffix!r} does not '
                              f'name how they end: {count_endings(left, example=True)}')
        return list(found.items())

    def _is_label(self, folder: str, name: str, suffixes: Tuple[str, ...]) -> bool:
        """Whether a file in the folder of the images is a label, which only a longer suffix can tell."""
        label_folder = self.data_prefix.get('seg_map_path')
        if label_folder is None or not osp.join(folder, name).startswith(osp.join(label_folder, '')):
            return False
        as_label, as_image = stem_of(name, suffixes_of(self.seg_map_suffix, 'seg_map_suffix')), stem_of(name, suffixes)
        return as_label is not None and (as_image is None or len(as_label) < len(as_image))

    def _listed(self, folder: str, suffixes: Tuple[str, ...]) -> List[Tuple[str, List[str]]]:
        """The stem of each name in ``ann_file``, with its suffix or without, and the files that it can mean."""
        if not isfile(self.ann_file, backend_args=self.backend_args):
            raise MissingDatasetError(self._message(f'ann_file={self.ann_file} is no file'))
        try:
            lines = list_from_file(self.ann_file, encoding='utf-8-sig', backend_args=self.backend_args)
        except UnicodeDecodeError as error:
            raise MissingDatasetError(self._message(
                f'ann_file={self.ann_file} is no text in UTF-8, with a name in each line: {error}')) from error
        lines = list(filter(None, map(str.strip, lines)))
        files, found = find(folder, lines, suffixes, self.backend_args), []
        for line in lines:
            stem = stem_of(line, suffixes)
            if line in files or stem is None:
                found.append((line, files.get(line, [line + suffixes[0]])))
            else:
                same = files.get(stem, [])
                found.append((stem, [line] if line in same or not same else same))
        return found

    def _names(self, folder: str) -> Iterator[str]:
        return list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=self.backend_args)

    def _why_empty(self) -> str:
        if self.ann_file:
            return f'{self.ann_file} names no image'
        folder, ends = self.data_prefix['img_path'], ' or '.join(suffixes_of(self.img_suffix, 'img_suffix'))
        there = count_endings(self._names(folder)) or 'no files'
        return f'{folder} holds no file that ends in {ends}, which is img_suffix; there are {there}'

    def _only_one_class(self) -> Optional[str]:
        """Says that the first labels are masks of 0 and 255, of which 255 is ignored, or None.

        Nothing is said where a step of somebody else's may change the labels.
        """
        loader, classes = loaders(self.pipeline).get('seg_map_path'), self._metainfo.get('classes') or ()
        if (loader is None or len(classes) < 2 or self.ignore_index != 255 or self.label_map is not None
                or self.label_table is not None
                or not all(is_of_libraries(type(step)) for step in flat(self.pipeline))):
            return None
        zeros = ignored = 0
        count = min(len(self), FIRST_LABELS)
        for idx in range(count):
            try:
                label = load(self.get_data_info(idx)['seg_map_path'], loader).squeeze()
            except (ValueError, KeyError):  # which is said when the sample is asked for, if labels are asked for
                continue
            zero, ignore = (label == 0), (label == 255)
            if label.ndim != 2 or not (zero | ignore).all():
                return None
            zeros, ignored = zeros + zero.any(), ignored + ignore.any()
        if not (zeros and ignored):
            return None
        left = 'nothing' if self.reduce_zero_label else f'only the class {classes[0]}'
        return (f'{self.data_prefix["seg_map_path"]}: the first {count} labels hold 0 and 255 only, and 255 is '
                f'ignored, which leaves {left}: if 255 is a class, change it to 1 in the files')

    def get_data_info(self, idx: int) -> dict:
        """The paths of a sample and what ``CheckLabels`` must know about it."""
        classes = self._metainfo.get('classes')
        return dict(super().get_data_info(idx), num_classes=len(classes) if classes else None,
                    ignore_index=self.ignore_index, label_values=self._metainfo.get('label_values'))

    def prepare_data(self, idx: int) -> Any:
        """A sample after the pipeline, or with ``on_error='skip'`` the next good one.

        If ``ResumableSampler`` drew it, its randomness is that of the place in the run.

        Raises:
            BrokenSampleError: if a file is broken, or with ``on_error='skip'`` those of many samples in a row.
            LabelError: if a label does not fit the image or the settings of the dataset.
            SampleError: if a step loads labels, and ``data_prefix`` names no folder of them.
        """
        if not -len(self) <= idx < len(self):
            raise IndexError(f'sample {idx} of {len(self)}')  # which ends a loop over the data set
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
        except Exception as error:  # decoders have errors of all kinds, and name no file; so have steps of one's own
            for key in ('img_path', 'seg_map_path'):
                if isinstance(error, OSError) and error.filename == info.get(key, ''):
                    raise broken(info[key], f'cannot be opened: {error.strerror}') from error
            for key, loader in _loaders(self.pipeline):
                if key not in info:
                    raise SampleError(
                        f'{type(self).__name__}: the pipeline has {type(loader).__name__}, and data_prefix='
                        f'{self.data_prefix!r} has no {key}: add its folder, or take that step out') from error
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
                f'If the data lies elsewhere, give its folder: --data-root DIR (now {self.data_root})\n'
                'To try the plugin without it: python tools/make_toy_ade20k.py, then '
                'python tools/train.py configs/fpn_inceptionnext_a_toy.py')


def _two_files(folder: str, names: List[str], of: str, setting: str) -> InputError:
    return InputError(f'{folder} holds {" and ".join(sorted(names))}, of which by the names each belongs to {of}: '
                      f'rename what does not, or give {setting} only one of these endings')


def loaders(pipeline: Any) -> Dict[str, BaseTransform]:
    """The steps of a pipeline that read files in MMSegmentation's own way, by the key of the path that they read."""
    return dict(_loaders(pipeline))


def _loaders(pipeline: Any) -> Iterator[Tuple[str, BaseTransform]]:
    if type(pipeline) in LOADERS:
        yield LOADERS[type(pipeline)], pipeline
    for name in ('transforms', 'subroutines'):  # of Compose and of the wrappers of transforms, as TestTimeAug
        for step in getattr(pipeline, name, None) or ():
            yield from _loaders(step)
