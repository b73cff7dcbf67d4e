"""Finds the images and labels of a folder of one's own, and which belong to training, validation and test."""
import os
import os.path as osp
import random
import re
from collections import Counter, defaultdict
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

import numpy as np
from PIL import Image

from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES
from mmseg_inceptionnext.errors import InputError

# Words in the names of folders, and of split files.
OF_LABELS = {'annotation', 'annotations', 'ann', 'anns', 'label', 'labels', 'mask', 'masks', 'gt', 'seg',
             'segmentation', 'target', 'targets', 'truth', 'groundtruth'}
OF_IMAGES = {'image', 'images', 'img', 'imgs', 'photo', 'photos', 'picture', 'pictures', 'input', 'inputs', 'jpeg',
             'rgb'}
OF_INSTANCES = {'instance', 'instances', 'object', 'objects', 'inst'}
OF_SPLITS = {word: split for split, words in dict(
    train=('train', 'training'), val=('val', 'valid', 'validation', 'dev'), test=('test', 'testing')).items()
             for word in words}
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


class _File(NamedTuple):
    base: str  # folder up to the last part of its path that names a role or a split
    rest: str  # the path below it
    role: Optional[str]  # image or label
    split: Optional[str]


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
    files = _with_roles(root, list(_files(root)))
    images = [file for file in files if file.role == 'image']
    labels = [file for file in files if file.role == 'label']
    if not images or not labels:
        raise InputError(f'{root} holds {len(images)} images and {len(labels)} labels that could be told apart: name '
                         'the folders images and labels, with train and val in each, or let each label have the name '
                         'of its image and an ending, such as a.jpg and a_mask.png')
    img_suffix, seg_map_suffix = _suffixes(images, labels)
    notes: List[str] = []
    splits = _pairs(images, labels, (img_suffix, seg_map_suffix), notes)
    return Layout(root, img_suffix, seg_map_suffix, _split(root, splits, val_share, seed, notes), notes)


def _files(root: str) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith('.') and not _words(name) & OF_INSTANCES)
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'):
                yield osp.relpath(osp.join(folder, name), root).replace(os.sep, '/')


def _words(name: str) -> Set[str]:
    """The words of a name, in lower case, such as left, img, 8 and bit of leftImg8bit."""
    return {word.lower() for word in re.findall(r'[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+', name)}


def _by_folder(path: str) -> _File:
    parts, role, split, depth = path.split('/'), None, None, 0
    for i, part in enumerate(parts[:-1], 1):
        words = _words(part)
        is_label, is_image = words & OF_LABELS, words & OF_IMAGES
        splits = {OF_SPLITS[word] for word in words & OF_SPLITS.keys()}
        if is_label or is_image:
            role, depth = 'label' if is_label else 'image', i
        if len(splits) == 1:
            split, depth = splits.pop(), i
    depth = depth if role else len(parts) - 1
    return _File('/'.join(parts[:depth]), '/'.join(parts[depth:]), role, split)


def _with_roles(root: str, paths: List[str]) -> List[_File]:
    """The files with what their folders say; else the labels are told by the names of files, or by what is in them."""
    files = [_by_folder(path) for path in paths]
    roles = {file.role for file in files} - {None}
    if len(roles) == 2:
        return [file for file in files if file.role]
    stems: Dict[str, Set[str]] = defaultdict(set)
    for file in files:
        stems[file.base].add(osp.splitext(file.rest)[0])
    others = {base: [other for other in stems if other != base and stems[other] & stems[base]] for base in stems}
    if any(others.values()):  # two folders with the same names in each
        is_label = {base: _look_like_labels(root, [file for file in files if file.base == base]) for base in stems}
        known = {file.base: file.role for file in files if file.role}
        for base, (other, *_) in ((base, found) for base, found in others.items() if found):
            if base not in known and known.get(other):
                known[base] = 'label' if known[other] == 'image' else 'image'
            elif base not in known and is_label[base] != is_label[other]:
                known[base] = 'label' if is_label[base] else 'image'
        return [file._replace(role=known.get(file.base)) for file in files if known.get(file.base)]
    return [file._replace(role='label' if _is_beside_its_image(file, stems[file.base]) else 'image') for file in files]


def _is_beside_its_image(file: _File, stems: Set[str]) -> bool:
    """Whether the name of a file is that of another one and an ending that begins with a sign: a_mask beside a."""
    stem = osp.splitext(file.rest)[0]
    ends = [i for i in range(1, len(stem)) if not stem[i].isalnum()]
    return any(stem[:i] in stems and _words(stem[i:]) & OF_LABELS for i in ends)


def _look_like_labels(root: str, files: List[_File]) -> bool:
    """Whether images hold few colours, of which neighbours are mostly equal."""
    for file in files[:3]:
        with Image.open(osp.join(root, file.base, file.rest)) as image:
            if image.mode == 'P':
                continue
            pixels = np.asarray(image.convert('RGB'))
        equal = (pixels[:, 1:] == pixels[:, :-1]).all(-1).mean()  # neighbours
        if equal < 0.8 or len(np.unique(pixels.reshape(-1, 3), axis=0)) > 512:
            return False
    return True


def _tail(images: List[_File], labels: Set[str]) -> str:
    """What ends the names of all images and is no part of those of labels, such as _leftImg8bit; mostly nothing."""
    stems = [osp.splitext(file.rest)[0] for file in images]
    if sum(stem in labels for stem in stems) * 2 > len(stems):
        return ''
    common = osp.commonprefix([stem[::-1] for stem in stems])[::-1]
    for i in (i for i, sign in enumerate(common) if not sign.isalnum()):
        if len(stems) > 1 and sum(_longest(label, {stem[:len(stem) - len(common) + i] for stem in stems}) is not None
                                  for label in labels) * 2 > len(stems):
            return common[i:]
    return ''


def _longest(label: str, stems: Set[str]) -> Optional[str]:
    """The longest stem that a label's name begins with, and behind which it ends or has a sign."""
    ends = [len(label), *(i for i in range(len(label) - 1, 0, -1) if not label[i].isalnum())]
    return next((label[:i] for i in ends if label[:i] in stems), None)


def _suffixes(images: List[_File], labels: List[_File]) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
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


def _pairs(images: List[_File], labels: List[_File], layout_suffixes, notes: List[str]) -> Dict[Optional[str], Split]:
    """The pairs by split; of images in several folders without one, those of the folder with the most pairs."""
    (img_suffix, seg_map_suffix) = layout_suffixes
    tail = img_suffix[0].rpartition('.')[0]
    by_place: Dict[Tuple[Optional[str], str], Dict[str, str]] = defaultdict(dict)
    for file in labels:
        ending = next((ending for ending in seg_map_suffix if file.rest.endswith(ending)), None)
        if ending:
            by_place[file.split, file.base][file.rest[:-len(ending)]] = file.rest
    found: Dict[Optional[str], Split] = {}
    lonely = []
    for split in sorted({file.split for file in images}, key=str):
        bases: Dict[str, List[str]] = defaultdict(list)
        for file in images:
            if file.split == split:
                bases[file.base].append(_without(file.rest, tail))
        candidates = []
        for base, names in bases.items():
            for (other, folder), there in by_place.items():
                if other == split:
                    candidates.append((base, folder, sorted(name for name in names if name in there), len(names)))
        if not candidates:
            continue
        base, folder, names, total = max(candidates, key=lambda found: len(found[2]))
        if names:
            found[split] = Split(base, folder, names, len(names) < total)
        lonely += [osp.join(base, name) for name in sorted(set(bases[base]) - set(names))]
    if lonely:
        notes.append(f'{len(lonely)} images have no label and are left out, such as {lonely[0]}')
    return found


def _split(root: str, found: Dict[Optional[str], Split], val_share: float, seed: int, notes: List[str]
           ) -> Dict[str, Split]:
    """Gives every pair to a split: by folders, by lists of names, or by drawing a share for validation."""
    splits = {name: split for name, split in found.items() if name}
    rest = found.get('train') or found.get(None)
    if rest is None:
        raise InputError(f'{root} has {" and ".join(splits) or "no pairs"}, and no images to train on: name a folder '
                         'train')
    if 'train' not in splits:
        lists = _lists(root, set(rest.names))
        if 'train' in lists:
            splits.update({name: rest._replace(names=names, listed=True) for name, names in lists.items()})
            notes.append('the splits are listed: '
                         + ', '.join(f'{name} has {len(names)} pairs' for name, names in lists.items()))
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
    return splits


def _lists(root: str, names: Set[str]) -> Dict[str, List[str]]:
    """The names in train.txt, val.txt and test.txt, one a line; of several folders the one that fits the most pairs."""
    best: Dict[str, List[str]] = {}
    for folder, _, files in os.walk(root):
        lists = {}
        for file in files:
            stem, extension = osp.splitext(file)
            if extension == '.txt' and stem.lower() in OF_SPLITS:
                lists[OF_SPLITS[stem.lower()]] = [name for name in read_names(osp.join(folder, file)) if name in names]
        if sum(map(len, lists.values())) > sum(map(len, best.values())):
            best = {split: listed for split, listed in lists.items() if listed}
    return best


def read_names(path: str) -> List[str]:
    """The names in a file, one a line, without a known suffix; a byte order mark and blank lines do not count."""
    with open(path, encoding='utf-8-sig') as file:
        lines = [line.strip() for line in file]
    return [osp.splitext(line)[0] if line.lower().endswith(IMAGE_SUFFIXES) else line for line in lines if line]
