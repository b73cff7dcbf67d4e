"""Finds the files of images and labels by their names."""
import os.path as osp
from collections import Counter, defaultdict
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from mmengine.fileio import isdir, list_dir_or_file

from mmseg_inceptionnext.errors import InputError

from .files import IMAGE_SUFFIXES

Suffix = Union[str, Sequence[str]]


def suffixes_of(setting: Suffix, name: str) -> Tuple[str, ...]:
    """One suffix or several, as a tuple; ``name`` is that of the setting, for the error."""
    suffixes = (setting, ) if isinstance(setting, str) else setting
    if not (isinstance(suffixes, (list, tuple)) and suffixes and all(isinstance(end, str) for end in suffixes)):
        raise InputError(f"{name}={setting!r}: give how the names end, '.jpg', or several: ('.jpg', '.png')")
    return tuple(suffixes)


def one_or_all(setting: Suffix, name: str) -> Suffix:
    """The suffix, if it is one, else all; see :func:`suffixes_of`."""
    suffixes = suffixes_of(setting, name)
    return suffixes if len(suffixes) > 1 else suffixes[0]


def stem_of(name: str, suffixes: Sequence[str]) -> Optional[str]:
    """A name without the longest of the suffixes that it ends in, in upper or lower case; None if it ends in none."""
    for end in sorted(suffixes, key=len, reverse=True):
        length = len(name) - len(end)
        if length >= 0 and name[length:].lower() == end.lower():
            return name[:length]
    return None


def by_stem(names: Iterable[str], suffixes: Sequence[str]) -> Dict[str, List[str]]:
    """The names that end in one of the suffixes, by what stands before it."""
    found = defaultdict(list)
    for name in names:
        stem = stem_of(name, suffixes)
        if stem is not None:
            found[stem].append(name)
    return dict(found)


def find(folder: str, stems: Iterable[str], suffixes: Sequence[str], backend_args: Any) -> Dict[str, List[str]]:
    """The files of some stems as :func:`by_stem` gives them; only the subfolders of these stems are listed."""
    names: List[str] = []
    for part in {osp.dirname(stem) for stem in stems}:
        place = osp.join(folder, part) or '.'
        if isdir(place, backend_args=backend_args):
            names += [osp.join(part, name) for name in list_dir_or_file(
                place, list_dir=False, backend_args=backend_args)]
    return by_stem(sorted(names), suffixes)


def preferred(names: List[str], suffixes: Sequence[str]) -> List[str]:
    """Of the files of one stem those whose suffix is one of these to the letter, if there are any; else all."""
    return [name for name in names if name.endswith(tuple(suffixes))] or names


def count_endings(names: Iterable[str], example: bool = False) -> str:
    """How many names there are of each ending, the most first, with an example of each if wanted."""
    first: Dict[str, str] = {}
    counts: Counter = Counter()
    for name in sorted(names):
        end = osp.splitext(name)[1] or 'no suffix'
        counts[end] += 1
        first.setdefault(end, name)
    return ', '.join(f'{count} in {end}' + f' such as {first[end]}' * example for end, count in counts.most_common(5))


def looks_like_an_image(name: str) -> bool:
    """Whether a file, which is not hidden, has a suffix of images."""
    return name.lower().endswith(IMAGE_SUFFIXES) and '/.' not in f'/{name}'
