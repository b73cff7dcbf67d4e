"""Finds the images and labels of a folder of one's own, and which belong to training, validation and test."""
import os.path as osp
import random
import re
from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from mmseg_inceptionnext.errors import InputError

from .roles import OF_SPLITS, TAKEN, File, find_files, walk, words
from .text import read_text

# Of several labels of one image, such as those of Cityscapes, that is taken whose ending has the first of these words.
PREFERRED = ('trainids', 'labelids', 'ids', 'label', 'labels', 'mask', 'gt', 'seg', '')


class Split(NamedTuple):
    """The pairs of a split.

    Attributes:
        img_path, seg_map_path: folders, relative to the data.
        names: of the images that have a label, relative to ``img_path``, without the suffix; ascending.
        listed: whether they are some of those in the folders only, so that a file must list them.
    """
    img_path: str
    seg_map_path: str
    names: List[str]
    listed: bool


class Layout(NamedTuple):
    """Where images and labels are.

    Attributes:
        root: folder of the data.
        img_suffix, seg_map_suffix: how the names of images and labels end, after what they have in common.
        splits: ``train``, ``val`` and perhaps ``test``.
        notes: sentences on what was left out, or decided.
    """
    root: str
    img_suffix: Tuple[str, ...]
    seg_map_suffix: Tuple[str, ...]
    splits: Dict[str, Split]
    notes: List[str]


def find_layout(root: str, val_share: float = 0.2, seed: int = 0) -> Layout:
    """Finds the pairs of image and label in a folder.

    Known are folders for images and labels, by the words of their names, with folders for splits above or below them,
    or with lists of names (``ImageSets/Segmentation/train.txt``); two folders of any name; and labels beside their
    images that differ by an ending (``a.jpg``, ``a_mask.png``). Without splits, a share is drawn for validation.

    Raises:
        InputError: if there is no pair, or nothing tells images from labels.
    """
    if not osp.isdir(root):
        raise InputError(f'{root}: no such folder')
    images, labels = find_files(root)
    img_suffix, seg_map_suffix = _suffixes(images, labels)
    notes: List[str] = []
    splits = _pairs(images, labels, (img_suffix, seg_map_suffix), notes)
    return Layout(root, img_suffix, seg_map_suffix, _split(root, splits, val_share, seed, notes), notes)


def _tail(images: List[File], labels: Set[str]) -> str:
    """What ends the names of all images and is no part of those of labels, such as _leftImg8bit; mostly nothing."""
    stems = [osp.splitext(file.rest)[0] for file in images]
    if sum(stem in labels for stem in stems) * 2 > len(stems):
        return ''
    common = osp.commonprefix([stem[::-1] for stem in stems])[::-1]
    for i in (i for i in reversed(range(len(common))) if not common[i].isalnum()):  # the shortest that will do
        if len(stems) > 1 and sum(_longest(label, {stem[:len(stem) - len(common) + i] for stem in stems}) is not None
                                  for label in labels) * 2 > len(stems):
            return common[i:]
    return ''


def _longest(label: str, stems: Set[str]) -> Optional[str]:
    """The longest stem that a label's name begins with, and behind which it ends or has a sign."""
    ends = [len(label), *(i for i in range(len(label) - 1, 0, -1) if not label[i].isalnum())]
    return next((label[:i] for i in ends if label[:i] in stems), None)


def _suffixes(images: List[File], labels: List[File]) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """How the names of images and of labels end; of several labels of an image the preferred one."""
    tail = _tail(images, {osp.splitext(file.rest)[0] for file in labels})
    stems = {_without(file.rest, tail) for file in images}
    endings: Counter = Counter()
    for file in labels:
        stem, extension = osp.splitext(file.rest)
        found = _longest(stem, stems)
        if found is not None:
            endings[stem[len(found):] + extension] += 1
    if not endings:
        raise InputError(f'no label has the name of an image: images are such as {images[0].rest}, labels such as '
                         f'{labels[0].rest}; give both the same names, but for the ending')
    cores: Dict[str, List[str]] = defaultdict(list)
    for ending in endings:
        cores[ending.rpartition('.')[0]].append(ending)
    best = min(cores, key=lambda core: (_rank(core), -sum(endings[ending] for ending in cores[core])))
    image_endings = sorted({tail + osp.splitext(file.rest)[1] for file in images})
    return tuple(image_endings), tuple(sorted(cores[best]))


def _rank(ending: str) -> int:
    words = {word.lower() for word in re.split('[^A-Za-z]+', ending)}
    return next((i for i, word in enumerate(PREFERRED) if word in words), len(PREFERRED))


def _without(name: str, tail: str) -> str:
    stem = osp.splitext(name)[0]
    return stem[:len(stem) - len(tail)] if tail and stem.endswith(tail) else stem


def _pairs(images: List[File], labels: List[File], suffixes, notes: List[str]) -> Dict[Optional[str], Split]:
    """The pairs by split; where several folders have some, those of the two that have most and are near each other."""
    (img_suffix, seg_map_suffix) = suffixes
    tail = img_suffix[0].rpartition('.')[0]
    of_images: Dict[Tuple[Optional[str], str], Set[str]] = defaultdict(set)
    of_labels: Dict[Tuple[Optional[str], str], Set[str]] = defaultdict(set)
    for file in images:
        of_images[file.split, file.base].add(_without(file.rest, tail))
    for file in labels:
        ending = next((ending for ending in seg_map_suffix if file.rest.endswith(ending)), None)
        if ending:
            of_labels[file.split, file.base].add(file.rest[:-len(ending)])
    found: Dict[Optional[str], Split] = {}
    for split in sorted({split for split, _ in of_images}, key=str):
        both = {(base, folder): names & there for (one, base), names in of_images.items() if one == split
                for (other, folder), there in of_labels.items() if other == split and names & there}
        if both:
            base, folder = max(both, key=lambda pair: len(both[pair]) * (1 + _near(*pair)))
            names = both.pop((base, folder))
            found[split] = Split(base, folder, sorted(names), names < of_images[split, base])
            _note(notes, of_labels[split, folder] - names, f'labels in {folder or "."} have no image')
            other = sorted({base for base, _ in both} - {base})
            if other:
                notes.append(f'{" and ".join(other)} left out: one folder of images can be used, here {base}; put all '
                             f'images into one, and all labels')
        for base in sorted(base for one, base in of_images if one == split):
            if base not in {base for base, _ in both}:
                known = set(found[split].names) if split in found and found[split].img_path == base else set()
                _note(notes, of_images[split, base] - known, f'images in {base or "."} have no label and are left out')
    if None in found and len(found) > 1 and 'train' in found:
        notes.append(f'{len(found[None].names)} pairs in {found[None].img_path or "."} are of no split and left out')
    return found


def _near(base: str, folder: str) -> int:
    """How many folders two paths have in common."""
    return len(set(base.split('/')) & set(folder.split('/')))


def _note(notes: List[str], names: Set[str], problem: str) -> None:
    if names:
        notes.append(f'{len(names)} {problem}, such as {min(names)}')


def _split(root: str, found: Dict[Optional[str], Split], val_share: float, seed: int, notes: List[str]
           ) -> Dict[str, Split]:
    """Gives every pair to a split: by folders, by lists of names, or by drawing a share for validation."""
    splits = {name: split for name, split in found.items() if name}
    rest = found.get('train') or found.get(None)
    if rest is None:
        raise InputError(f'{root} has {" and ".join(splits) or "no pairs"}, and no images to train on: name a folder '
                         'train')
    if 'train' not in splits:
        lists = _lists(root, rest.names, notes)
        if 'train' in lists:
            splits.update({name: rest._replace(names=names, listed=True) for name, names in lists.items()})
        else:
            splits['train'] = rest
    if 'val' not in splits:
        names, train = list(splits['train'].names), splits['train']
        random.Random(seed).shuffle(names)
        count = max(1, round(val_share * len(names)))
        if count >= len(names):
            raise InputError(f'{root} has {len(names)} pairs, of which {count} would be for validation: give more, or '
                             'a smaller --val-share')
        splits['val'] = train._replace(names=sorted(names[:count]), listed=True)
        splits['train'] = train._replace(names=sorted(names[count:]), listed=True)
        notes.append(f'{count} of {len(names)} pairs, drawn with seed {seed}, are for validation')
    return {name: splits[name] for name in ('train', 'val', 'test') if name in splits}


def _lists(root: str, names: List[str], notes: List[str]) -> Dict[str, List[str]]:
    """The names in train.txt, val.txt and test.txt, one a line; of several folders the one that fits the most pairs."""
    best: Dict[str, List[str]] = {}
    missing: Dict[str, Set[str]] = {}
    known = set(names)
    for folder, files in walk(root):
        lists, unknown = {}, {}
        for file in sorted(files, key=len):  # train.txt before train_more.txt
            stem, extension = osp.splitext(file)
            splits = {OF_SPLITS[word] for word in words(stem) & OF_SPLITS.keys()}
            if extension.lower() == '.txt' and len(splits) == 1 and not splits & lists.keys():
                path = osp.join(folder, file)
                found = {line: _named(line, known) for line in read_names(path, stem.lower() in OF_SPLITS)}
                if any(found.values()):
                    lists[splits.pop()] = list(dict.fromkeys(filter(None, found.values())))
                    unknown[path] = {line for line, name in found.items() if not name}
        if sum(map(len, lists.values())) > sum(map(len, best.values())):
            best, missing = lists, unknown
    if 'train' in best:
        notes.append('the splits are listed: '
                     + ', '.join(f'{name} has {len(listed)} pairs' for name, listed in sorted(best.items())))
        for path, lines in missing.items():
            _note(notes, lines, f'names in {path} have no pair')
        _note(notes, known.difference(*best.values()), 'pairs are in no list and left out')
        _note(notes, set(best['train']) & set(best.get('val', ())), 'pairs are in the lists of both train and val')
    return best


def _named(line: str, known: Set[str]) -> Optional[str]:
    """The name of a pair that a line of a list holds: all of it or its first word, perhaps with a suffix or a path."""
    for text in (line, re.split(r'[\s,;]', line)[0]):
        parts = (osp.splitext(text)[0] if text.lower().endswith(TAKEN) else text).replace('\\', '/').split('/')
        for name in (text, *('/'.join(parts[i:]) for i in range(len(parts)))):
            if name in known:
                return name
    return None


def read_names(path: str, must_be_text: bool = True) -> List[str]:
    """The lines of a file that are not blank; none of a file that may be something else, and is."""
    try:
        return list(filter(None, map(str.strip, read_text(path).splitlines())))
    except InputError:
        if must_be_text:
            raise
        return []
