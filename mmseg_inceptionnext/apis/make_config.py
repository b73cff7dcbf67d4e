"""Writes a config for a folder of images and labels of one's own."""
import os.path as osp
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from PIL import Image
from prettytable import PrettyTable
from tqdm import tqdm

from mmseg_inceptionnext.checkpoints.files import AtomicBackend
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets.label_table import LabelTable
from mmseg_inceptionnext.datasets.own_data import (
    IGNORED,
    Assignment,
    Labels,
    Layout,
    Split,
    assign,
    find_classes,
    find_layout,
    read_labels,
)
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models.backbones.metanext import TRUNC_NORMAL

SCRATCH_RATE = 2e-3 / 8  # learning rate for each image of a batch, as in configs/_base_/schedules/adamw_800.py
CROP, STRIDE = 512, 32  # the largest crop, and what its sides are multiples of, in pixels
EPOCHS, FEWEST, MOST = 128, 1000, 160000  # 160 000 iterations of 16 images are 127 epochs of ADE20K
LARGE = 4  # times the crop: sides from which on images are predicted in windows
GIB_AN_IMAGE = 1.6  # of GPU memory in training: UPerNet, 512 x 512, float32


class Options(NamedTuple):
    """What is asked for; see ``tools/make_config.py``."""
    data: str
    out: str
    configs: str  # folder of the project's configs
    command: str
    classes: Optional[str] = None
    head: str = 'upernet'
    arch: str = 't'
    pretrained: Optional[str] = None
    load_from: Optional[str] = None
    val_share: float = 0.2
    seed: int = 0
    zero: Optional[str] = None
    class_weights: bool = False


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        layout: where images and labels are.
        labels: what the labels hold.
        assignment: which class that is.
        sizes: height and width of each image.
    """
    layout: Layout
    labels: Labels
    assignment: Assignment
    sizes: List[Tuple[int, int]]


def make_config(options: Options) -> Tuple[str, str, Found]:
    """Reads a folder and writes a config that ``tools/train.py`` runs, and the lists of its splits where it needs some.

    Returns:
        What it found and decided, to print; the config's text; and what it found.

    Raises:
        InputError: if something cannot be told; names the option that tells it.
        BrokenSampleError: if a label cannot be read.
    """
    if not options.out.endswith('.py'):
        raise InputError(f'--out {options.out}: allowed is a file that ends in .py')
    if osp.lexists(options.out):
        raise InputError(f'--out {options.out} is there already, perhaps with changes of yours: give another name, or '
                         'delete it')
    found = look(options)
    lists = {name: osp.join(osp.splitext(osp.abspath(options.out))[0] + '_splits', f'{name}.txt')
             for name, split in found.layout.splits.items() if split.listed}
    text, notes = _write(options, found, lists)
    for name, path in lists.items():
        AtomicBackend().put(('\n'.join(found.layout.splits[name].names) + '\n').encode(), path)
    AtomicBackend().put(text.encode(), options.out)
    return _describe(found, notes), text, found


def look(options: Options) -> Found:
    """Finds images, labels and classes in a folder."""
    layout = find_layout(options.data, options.val_share, options.seed)
    classes = find_classes(options.data, options.classes)
    pairs = [pair for split in layout.splits.values() for pair in _pairs(layout, split)]
    by_color = bool(classes and classes.keys) and not isinstance(classes.keys[0], int)
    labels = read_labels(tqdm([label for _, label in pairs], desc='labels', unit='file'), by_color)
    sizes = []
    for (image, label), shape in zip(pairs, labels.shapes):
        sizes.append(_size(image))
        if sizes[-1] != shape:
            raise InputError(f'{image} has {sizes[-1][1]} x {sizes[-1][0]} pixels, its label {label} {shape[1]} x '
                             f'{shape[0]}: both must have the same size')
    assignment = assign(labels, classes, options.zero)
    if 'test' in layout.splits and _is_blind(_pairs(layout, layout.splits['test']), assignment):
        del layout.splits['test']
        layout.notes.append('the labels of the test split hold only what is ignored, so that nothing is tested on it')
    return Found(layout, labels, assignment, sizes)


def _is_blind(pairs: List[Tuple[str, str]], assignment: Assignment) -> bool:
    """Whether labels hold nothing but what is ignored, as those that Cityscapes publishes for its test images."""
    count = len(assignment.names)
    label_map = None if assignment.colors else assignment.label_map or {i: i for i in range(count)}
    table = LabelTable(count, label_map, assignment.colors)
    return all((table.read(Path(label).read_bytes(), label) == IGNORED).all() for _, label in pairs)


def _pairs(layout: Layout, split: Split) -> List[Tuple[str, str]]:
    def path(folder: str, name: str, suffixes: Tuple[str, ...]) -> str:
        paths = [osp.join(layout.root, folder, name + suffix) for suffix in suffixes]
        return next(filter(osp.isfile, paths))
    return [(path(split.img_path, name, layout.img_suffix), path(split.seg_map_path, name, layout.seg_map_suffix))
            for name in split.names]


def _size(path: str) -> Tuple[int, int]:
    """Height and width of an image, turned as EXIF says."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size if turned else image.size[::-1]
    except Exception as error:  # Pillow's own, and those of each format
        raise InputError(f'{path}: cannot be read as an image: {error}') from error


def _write(options: Options, found: Found, lists: Dict[str, str]) -> Tuple[str, List[str]]:
    """The text of the config, a leaf of the recipe for ADE20K with that head and size, and what it settles."""
    base = osp.join(osp.abspath(options.configs), f'{options.head}_inceptionnext_{options.arch}_ade20k.py')
    recipe, layout, train = load_config(base), found.layout, found.layout.splits['train'].names
    crop, batch = _crop(found.sizes), _batch(found, recipe.auto_scale_lr.base_batch_size)
    iterations = int(np.clip(round(EPOCHS * len(train) / batch, -2), FEWEST, MOST))
    starts_at_random = options.pretrained == 'none' and not options.load_from
    rate = batch * (SCRATCH_RATE if starts_at_random else
                    recipe.optim_wrapper.optimizer.lr / recipe.auto_scale_lr.base_batch_size)
    height, width = (int(side) for side in np.median(found.sizes, axis=0))
    interval, loading = max(1, iterations // 10), 'num_workers=2'
    warm_up = min(1500, interval)
    lines = [f'# Written by: {options.command}',
             f'# {len(train)} images to train on, {len(layout.splits["val"].names)} for validation, of {width} x '
             f'{height} pixels in the median.',
             f'_base_ = {base!r}', f'data_root = {osp.abspath(layout.root)!r}', *_data(layout, found.assignment),
             'train_pipeline = _base_.train_pipeline',
             f'train_pipeline[3].update(scale={max(height, width), min(height, width)})  # RandomResize',
             f'train_pipeline[4].update(crop_size={crop})  # RandomCrop', 'test_pipeline = _base_.test_pipeline',
             f"test_pipeline[1:-3] = [dict(type='ResizeToMultiple', size_divisor={STRIDE})]  # in place of Resize",
             *_loader(layout, 'train', lists, f'batch_size={batch}, {loading}', 'train_pipeline'),
             *_loader(layout, 'val', lists, loading, 'test_pipeline'),
             *(_loader(layout, 'test', lists, loading, 'test_pipeline') if 'test' in layout.splits else
               ['test_dataloader = val_dataloader']),
             *_model(options, found, crop),
             f'optim_wrapper = dict(optimizer=dict(lr={rate:.3g}))',
             'param_scheduler = [',
             f"    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end={warm_up}),",
             f"    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin={warm_up}, end={iterations})]",
             f'train_cfg = dict(max_iters={iterations}, val_interval={interval})',
             f"default_hooks = dict(checkpoint=dict(interval={interval}, save_best='mIoU'))",
             f'auto_scale_lr = dict(base_batch_size={batch})']
    if options.load_from:
        lines.append(f'load_from = {_absolute(options.load_from)!r}')
    notes = [f'crops of {crop[0]} x {crop[1]}, batch {batch}, {iterations} iterations '
             f'({iterations * batch / len(train):.0f} epochs), learning rate {rate:.3g}']
    if starts_at_random:
        notes.append('the backbone starts at random (--pretrained none), which needs many images')
    return '\n'.join(lines) + '\n', notes


def _absolute(path: str) -> str:
    return osp.abspath(path) if osp.exists(path) else path  # else it may be a URL


def _data(layout: Layout, assignment: Assignment) -> List[str]:
    lines = ['data = dict(', "    type='FolderDataset',", '    data_root=data_root,',
             f'    classes={assignment.names!r},']
    if assignment.palette:
        lines.append(f'    palette={[list(color) for color in assignment.palette]!r},')
    if assignment.colors:
        lines.append(f'    colors={[list(color) for color in assignment.colors]!r},')
    if assignment.label_map:
        lines.append(f'    label_map={assignment.label_map!r},')
    return [*lines, f'    img_suffix={_one_or_all(layout.img_suffix)!r},',
            f'    seg_map_suffix={_one_or_all(layout.seg_map_suffix)!r})']


def _one_or_all(suffixes: Tuple[str, ...]):
    return suffixes if len(suffixes) > 1 else suffixes[0]


def _loader(layout: Layout, name: str, lists: Dict[str, str], settings: str, pipeline: str) -> List[str]:
    split = layout.splits[name]
    listed = f'split_file={lists[name]!r}, ' if name in lists else ''
    return [f'{name}_dataloader = dict({settings}, dataset=dict(',
            f'    data_prefix=dict(img_path={split.img_path!r}, seg_map_path={split.seg_map_path!r}),',
            f'    {listed}pipeline={pipeline}, **data))']


def _model(options: Options, found: Found, crop: Tuple[int, int]) -> List[str]:
    classes = len(found.assignment.names)
    loss = f', loss_decode=dict(class_weight={_class_weights(found)!r})' if options.class_weights else ''
    parts = [f'data_preprocessor=dict(size={crop})']
    if options.pretrained == 'none' or options.load_from:
        parts.append(f'backbone=dict(init_cfg=dict(_delete_=True, **{TRUNC_NORMAL!r}))')
    elif options.pretrained:
        parts.append(f'backbone=dict(init_cfg=dict(checkpoint={_absolute(options.pretrained)!r}))')
    parts.append(f'decode_head=dict(num_classes={classes}{loss})')
    if options.head == 'upernet':
        parts.append(f'auxiliary_head=dict(num_classes={classes})')
    if max(map(max, found.sizes)) > LARGE * max(crop):
        stride = tuple(side * 2 // 3 for side in crop)
        parts.append(f"test_cfg=dict(mode='slide', crop_size={crop}, stride={stride})")
    return ['model = dict(', *(f'    {part},' for part in parts[:-1]), f'    {parts[-1]})']


def _crop(sizes: List[Tuple[int, int]]) -> Tuple[int, int]:
    """Height and width: those of most images, in multiples of :data:`STRIDE`, up to :data:`CROP`."""
    return tuple(int(np.clip(side // STRIDE * STRIDE, STRIDE, CROP)) for side in np.median(sizes, axis=0))


def _batch(found: Found, most: int) -> int:
    """What fits into the memory of the GPU, up to the recipe's batch; without one 8, and no more than there are."""
    batch, (height, width) = 8, _crop(found.sizes)
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] / 2**30
        batch = int(np.clip(free / (GIB_AN_IMAGE * height * width / CROP**2), 2, most))
    return max(2, min(batch, len(found.layout.splits['train'].names)))


def shares(found: Found) -> Dict[str, float]:
    """The share of the pixels of each class, of those that are not ignored."""
    counts, assignment = found.labels.counts, found.assignment
    if assignment.colors:
        colors = np.array([value if isinstance(value, tuple) else (value, ) * 3 for value in counts])  # or greys
        number = np.array(list(counts.values()))
        nearest = ((colors[:, None] - np.array(assignment.colors))**2).sum(2).argmin(1)  # itself, but in a JPEG
        pixels = np.bincount(nearest, number, len(assignment.colors))[:len(assignment.names)].tolist()
    elif assignment.label_map:
        pixels = [sum(counts.get(value, 0) for value, index in assignment.label_map.items() if index == i)
                  for i in range(len(assignment.names))]
    else:
        pixels = [counts.get(i, 0) for i in range(len(assignment.names))]
    return {name: count / max(1, sum(pixels)) for name, count in zip(assignment.names, pixels)}


def _class_weights(found: Found) -> List[float]:
    """One over the root of each class's share, of mean 1; a class that does not occur counts as the rarest one."""
    values = np.array(list(shares(found).values()))
    weights = np.where(values > 0, values, values[values > 0].min())**-0.5
    return [round(float(weight), 3) for weight in weights / weights.mean()]


def _describe(found: Found, notes: List[str]) -> str:
    layout, table = found.layout, PrettyTable(['class', 'share of the pixels'], align='l')
    for name, share in shares(found).items():
        table.add_row([name, f'{100 * share:.2f} %' if share else 'never occurs'])
    lines = [f'{name}: {len(split.names)} pairs in {split.img_path or "."} and {split.seg_map_path or "."}'
             for name, split in layout.splits.items()]
    sizes = sorted(set(found.sizes), key=found.sizes.count, reverse=True)
    lines.append(f'images: {", ".join(f"{width} x {height}" for height, width in sizes[:3])}'
                 + f' and {len(sizes) - 3} other sizes' * (len(sizes) > 3))
    return '\n'.join([*lines, *layout.notes, *found.assignment.notes, *notes, table.get_string()])


def plot(found: Found, path: str) -> None:
    """Draws the shares of the classes and the sizes of the images."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(10, max(3., 1.2 + 0.25 * len(found.assignment.names))), layout='constrained')
    bars, dots = figure.subplots(1, 2)
    found_shares = shares(found)
    bars.barh(list(found_shares), [100 * share for share in found_shares.values()])
    bars.invert_yaxis()
    bars.set_xlabel('share of the pixels (%)')
    heights, widths = zip(*found.sizes)
    dots.scatter(widths, heights, alpha=0.3)
    dots.set_xlabel('width (pixels)')
    dots.set_ylabel('height (pixels)')
    dots.set_xlim(left=0)
    dots.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)
