"""Lists the pictures in a folder of one's own, and tells images from labels and what belongs to which split."""
import os
import os.path as osp
import re
from collections import Counter, defaultdict
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np
from PIL import Image

from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES
from mmseg_inceptionnext.datasets.pairing import count_endings
from mmseg_inceptionnext.errors import InputError

TAKEN = (*IMAGE_SUFFIXES, '.gif')  # as which some save masks
# Words in the names of folders, and of split files.
OF_LABELS = {'annotation', 'annotations', 'annot', 'ann', 'anns', 'label', 'labels', 'mask', 'masks', 'gt', 'gts',
             'seg', 'segmentation', 'segmentations', 'semantic', 'target', 'targets', 'truth', 'groundtruth'}
OF_IMAGES = {'image', 'images', 'img', 'imgs', 'photo', 'photos', 'picture', 'pictures', 'input', 'inputs', 'jpeg',
             'rgb'}
OF_INSTANCES = {'instance', 'instances', 'inst', 'object', 'objects'}
OF_SPLITS = {word: split for split, words in dict(
    train=('train', 'training'), val=('val', 'valid', 'validation', 'dev'), test=('test', 'testing')).items()
             for word in words}
TOGETHER = re.compile(f'({"|".join(OF_SPLITS)})({"|".join(OF_LABELS | OF_IMAGES)})')  # as in trainannot


class File(NamedTuple):
    """A picture.

    Attributes:
        base: the folder of its role and split.
        rest: the path below it.
        role: ``image``, ``label`` or None.
        split: or None.
    """
    base: str
    rest: str
    role: Optional[str]
    split: Optional[str]


def find_files(root: str) -> Tuple[List[File], List[File]]:
    """The images and the labels in a folder.

    Raises:
        InputError: if nothing tells them apart.
    """
    others: List[str] = []
    files = _with_roles(root, list(_pictures(root, others)))
    images, labels = ([file for file in files if file.role == role] for role in ('image', 'label'))
    if not images or not labels:
        more = f' There are also {count_endings(others)}, which are not read: have your tool export masks as PNG.'
        raise InputError(f'{root} holds {len(images)} images and {len(labels)} labels that could be told apart: name '
                         'the folders images and labels, with train and val in each, or let each label have the name '
                         f'of its image and an ending, such as a.jpg and a_mask.png.{more * bool(others)}')
    return images, labels


def walk(root: str) -> Iterator[Tuple[str, List[str]]]:
    """Each folder, also behind links, that is not hidden and not of instances, and the names of its files."""
    seen: Set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if osp.realpath(folder) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(osp.realpath(folder))
        folders[:] = sorted(name for name in folders if not name.startswith('.') and not _is_of_instances(words(name)))
        yield folder, sorted(name for name in names if not name.startswith('.'))


def _is_of_instances(found: Set[str]) -> bool:
    return bool(found & OF_INSTANCES) and (bool(found & OF_LABELS) or found <= OF_INSTANCES)


def words(name: str) -> Set[str]:
    """The words of a name, in lower case, such as left, img and bit of leftImg8bit, train and annot of trainannot."""
    found: Set[str] = set()
    for word in re.findall(r'[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+', name):
        two = TOGETHER.fullmatch(word.lower())
        found.update(two.groups() if two else [word.lower()])
    return found


def _pictures(root: str, others: List[str]) -> Iterator[str]:
    """Paths relative to ``root``; other files that may be labels are added to ``others``."""
    for folder, names in walk(root):
        for name in names:
            if name.lower().endswith(TAKEN):
                path = osp.relpath(osp.join(folder, name), root).replace(os.sep, '/')
                if path != path.encode(errors='replace').decode():
                    raise InputError(f'{folder}: the name {os.fsencode(name)!r} is not in UTF-8: rename the file')
                yield path
            elif name.lower().endswith(('.json', '.xml', '.npy', '.npz', '.mat', '.geojson', '.nii', '.gz')):
                others.append(name)


def _by_folder(path: str) -> Tuple[File, int]:
    """What the folders of a path say, and how many of its parts that takes."""
    parts, role, split, depth, of_split = path.split('/'), None, None, 0, 0
    for i, part in enumerate(parts[:-1], 1):
        found = words(part)
        splits = {OF_SPLITS[word] for word in found & OF_SPLITS.keys()}
        if found & (OF_LABELS | OF_IMAGES):
            role, depth = 'label' if found & OF_LABELS else 'image', i
        if len(splits) == 1:
            split, depth, of_split = splits.pop(), i, i
    return File('/'.join(parts[:depth]), '/'.join(parts[depth:]), role, split), of_split


def _with_roles(root: str, paths: List[str]) -> List[File]:
    """The files with what their folders say; else the labels are told by the names of files, or by what is in them."""
    found = [_by_folder(path) for path in paths]
    files = [file for file, _ in found]
    count = Counter(file.role for file in files)
    if count['image'] and count['label']:
        return [file for file in files if file.role]
    told = _two_folders(root, paths, found)
    if told:
        return told
    if len(count) == 2 and count[None] * 2 >= len(files) - count[None]:  # train beside train_labels
        other = 'image' if count['label'] else 'label'
        return [file if file.role else file._replace(role=other) for file in files]
    return _side_by_side(files)


def _two_folders(root: str, paths: List[str], found: List[Tuple[File, int]]) -> List[File]:
    """The files of folders of any name that hold the same names, if they look like images and like labels."""
    top = osp.commonpath([osp.dirname(path) for path in paths]) if paths else ''
    start, groups = len(top.split('/')) if top else 0, defaultdict(list)
    for path, (file, of_split) in zip(paths, found):
        parts, base = path.split('/'), file.base
        if not file.role:  # the folder below that of the split, or down to it, or the first one
            depth = min(len(parts) - 1, of_split if of_split > start + 1 else start + 1 + (of_split == start + 1))
            base = '/'.join(parts[:depth])
        groups[base].append(File(base, path[len(base):].lstrip('/'), file.role, file.split))
    stems = {base: {osp.splitext(file.rest)[0] for file in there} for base, there in groups.items()}
    paired = [base for base in groups if any(
        other != base and groups[other][0].split == groups[base][0].split and stems[other] & stems[base]
        for other in groups)]
    known = {base: groups[base][0].role for base in paired}
    if set(known.values()) == {None}:
        known = {base: 'label' if _look_like_labels(root, groups[base]) else 'image' for base in paired}
    other = {'image': 'label', 'label': 'image'}
    known = {base: role or other[next(filter(None, known.values()))] for base, role in known.items()}
    if len(set(known.values())) < 2:
        return []
    return [file._replace(role=known[base]) for base in paired for file in groups[base]]


def _look_like_labels(root: str, files: List[File]) -> bool:
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


def _side_by_side(files: List[File]) -> List[File]:
    """The files with labels beside their images: a_mask beside a or a_image, or a.png beside a.jpg."""
    stems: Dict[str, Dict[str, List[str]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        stem, extension = osp.splitext(file.rest)
        stems[file.base][stem].append(extension.lower())
        for i in _signs(stem):
            if words(stem[i:]) & OF_IMAGES:
                stems[file.base][stem[:i]] += []
    is_label = [any(stem[:i] in stems[file.base] and words(stem[i:]) & OF_LABELS for i in _signs(stem))
                for file, stem in ((file, osp.splitext(file.rest)[0]) for file in files)]
    if not any(is_label):
        is_label = [extension.lower() in ('.png', '.gif') and not set(stems[file.base][stem]) <= {'.png', '.gif'}
                    for file, (stem, extension) in ((file, osp.splitext(file.rest)) for file in files)]
    return [file._replace(role='label' if label else 'image') for file, label in zip(files, is_label)]


def _signs(stem: str) -> List[int]:
    return [i for i in range(1, len(stem)) if not stem[i].isalnum()]
