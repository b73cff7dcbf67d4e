"""Draws small public data sets, file by file as MMSegmentation's converters leave them."""
import io
from typing import Callable, NamedTuple, Optional

import numpy as np
from PIL import Image

SIZE = (64, 96)  # height and width
DRAWN = {}  # the class of each pixel, 255 if it is ignored, by the path of the label


class Layout(NamedTuple):
    """The paths of a data set, with ``split`` and ``i`` to fill in, and how classes are saved.

    Attributes:
        lists: folder of the files that list the names of each split; None if folders tell.
        others: paths of files that lie beside the labels and are none.
        sets: of each split: its folder, or the name of its list, and the numbers of its images.
    """
    image: str
    label: str
    save: Callable
    classes: int
    sets: tuple = (('train', (0, 1)), ('val', (2, 3)))
    lists: Optional[str] = None
    others: tuple = ()


def as_they_are(label, path):
    Image.fromarray(label).save(path)


def from_one(label, path):
    """0 is ignored."""
    Image.fromarray(np.where(label == 255, 0, label + 1).astype(np.uint8)).save(path)


def palette(label, path):
    """The colours of a palette, of which the indices count."""
    image = Image.fromarray(label, mode='P')
    image.putpalette([(37 * i + 11 * part) % 256 for i in range(256) for part in range(3)])
    image.save(path)


def last_ignored(label, path):
    """65 is ignored."""
    palette(np.where(label == 255, 65, label).astype(np.uint8), path)


def binary(label, path):
    as_they_are(np.where(label == 255, 0, label).astype(np.uint8), path)


CITY = '{split}/ulm/ulm_{i:06d}_000019_'
PATCHES = ('img_dir/{split}/%s.png', 'ann_dir/{split}/%s.png')
LAYOUTS = {
    'cityscapes': Layout(
        f'leftImg8bit/{CITY}leftImg8bit.png', f'gtFine/{CITY}gtFine_labelTrainIds.png', as_they_are, 19,
        others=tuple(f'gtFine/{CITY}gtFine_{end}' for end in ('color.png', 'labelIds.png', 'polygons.json'))),
    'voc12aug': Layout(
        'JPEGImages/2007_{i:06d}.jpg', 'SegmentationClass/2007_{i:06d}.png', palette, 21,
        (('train', (0, 1)), ('aug', (4, 5)), ('val', (2, 3))), 'ImageSets/Segmentation',
        others=('SegmentationObject/2007_{i:06d}.png', )),
    'pascal-context-59': Layout(
        'JPEGImages/2008_{i:06d}.jpg', 'SegmentationClassContext/2008_{i:06d}.png', from_one, 59,
        lists='ImageSets/SegmentationContext'),
    'coco-stuff164k': Layout(
        'images/{split}/{i:012d}.jpg', 'annotations/{split}/{i:012d}_labelTrainIds.png', as_they_are, 171,
        (('train2017', (0, 1)), ('val2017', (2, 3))), others=('annotations/{split}/{i:012d}.png', )),
    'coco-stuff10k': Layout(
        'images/{split}/COCO_train2014_{i:012d}.jpg', 'annotations/{split}/COCO_train2014_{i:012d}_labelTrainIds.png',
        from_one, 171, (('train2014', (0, 1)), ('test2014', (2, 3)))),
    'loveda': Layout(*(path % '{i}' for path in PATCHES), from_one, 7),
    'potsdam': Layout(*(path % '2_1{i}_0_0_512_512' for path in PATCHES), from_one, 6),
    'vaihingen': Layout(*(path % 'area{i}_0_0_512_512' for path in PATCHES), from_one, 6),
    'isaid': Layout(
        'img_dir/{split}/P000{i}_0_896_0_896.png', 'ann_dir/{split}/P000{i}_0_896_0_896_instance_color_RGB.png',
        as_they_are, 16),
    'mapillary': Layout(
        '{split}/images/a{i}-B_c.jpg', '{split}/v1.2/labels/a{i}-B_c.png', last_ignored, 65,
        (('training', (0, 1)), ('validation', (2, 3))), others=('{split}/v1.2/instances/a{i}-B_c.png', )),
    'chase-db1': Layout(
        'images/{split}/Image_0{i}L.png', 'annotations/{split}/Image_0{i}L_1stHO.png', binary, 2,
        (('training', (0, 1)), ('validation', (2, 3))), others=('annotations/{split}/Image_0{i}L_2ndHO.png', )),
}


def draw(name, root):
    """Draws a data set into a folder, and notes the class of each pixel in :data:`DRAWN`; returns the folder."""
    layout = LAYOUTS[name]
    for split, numbers in layout.sets:
        for i in numbers:
            draw_pair(root, layout, split, i)
        if layout.lists:
            (root / layout.lists).mkdir(parents=True, exist_ok=True)
            names = [layout.image.format(i=i).partition('/')[2].partition('.')[0] for i in numbers]
            (root / layout.lists / f'{split}.txt').write_text(''.join(f'{each}\n' for each in names))
    return root


def draw_pair(root, layout, split, i):
    image, label, *others = (root / path.format(split=split, i=i)
                             for path in (layout.image, layout.label, *layout.others))
    if split == 'aug':  # the labels of SBD: one channel, without a palette
        label = root / f'SegmentationClassAug/{label.name}'
    for path in (image, label, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in others:
        path.write_bytes(b'another kind of file')
    rng = np.random.default_rng(i)
    values = np.array([0, layout.classes // 2, layout.classes - 1, 255], np.uint8)
    blocks = rng.permutation(values.repeat(SIZE[0] * SIZE[1] // 256)).reshape(SIZE[0] // 8, SIZE[1] // 8)
    classes = blocks.repeat(8, 0).repeat(8, 1)
    (as_they_are if split == 'aug' else layout.save)(classes, label)
    DRAWN[str(label)] = np.where(classes == 255, 0, classes) if layout.save is binary else classes
    pixels = np.stack([classes.astype(int) * part % 256 for part in (3, 5, 7)], -1).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'BMP' if 'instance_color' in layout.label else image.suffix[1:].replace(
        'jpg', 'JPEG'))  # so the converter of iSAID saves its patches, by whatever name
    image.write_bytes(content.getvalue())
