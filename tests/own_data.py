"""Draws folders of images and labels as people have them: each layout, and each way of holding classes in files."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ['sky', 'road', 'car']
COLORS = [(70, 130, 180), (128, 64, 128), (0, 0, 142)]
SIZE = (64, 48)  # width and height
DRAWN = {}  # the class of each pixel, by the path of the image


def scene(seed):
    """An image, H x W x 3, and the class of each pixel, H x W; all three occur."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SIZE[::-1], np.uint8)
    label[20 + seed % 5:] = 1
    x = int(rng.integers(5, 40))
    label[28:40, x:x + 16] = 2
    image = np.array(COLORS)[label] + rng.integers(-20, 20, (*label.shape, 3))
    return image.clip(0, 255).astype(np.uint8), label


def index(label, path):
    Image.fromarray(label).save(path)


def from_one(label, path):
    """Values count from 1, and 0 is something else."""
    label = label + 1
    label[:2] = 0
    index(label, path)


def deep(label, path):
    Image.fromarray(label.astype(np.uint16) * 300 + 7).save(path)


def values(label, path):
    index(np.array([23, 7, 26], np.uint8)[label], path)


def palette(label, path):
    """The indices are in another order than the classes: only the colours tell."""
    image = Image.fromarray(np.array([2, 0, 1], np.uint8)[label], mode='P')
    image.putpalette([part for i in (1, 2, 0) for part in COLORS[i]])
    image.save(path)


def binary(label, path):
    index((label == 2).astype(np.uint8) * 255, path)


def color(label, path):
    Image.fromarray(np.array(COLORS, np.uint8)[label]).save(path)


def color_with_void(label, path):
    pixels = np.array(COLORS, np.uint8)[label]
    pixels[:2] = 224, 224, 192
    Image.fromarray(pixels).save(path)


def grey_rgb(label, path):
    Image.fromarray(np.repeat(label[..., None], 3, axis=2)).save(path)


def lossy(label, path):
    Image.fromarray(np.array(COLORS, np.uint8)[label]).save(path, quality=95, subsampling=0)


def pair(root, image_path, label_path, save, seed):
    image, label = scene(seed)
    for path in (root / image_path, root / label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / image_path)
    DRAWN[str(root / image_path)] = label
    save(label, root / label_path)


def ade(root):
    for split, count in (('train', 4), ('val', 2)):
        for i in range(count):
            name = ['a 1', 'straße', 'c', 'd'][i]
            pair(root, f'images/{split}/{name}.jpg', f'annotations/{split}/{name}.png', index, i)


def split_above(root):
    for split, count in (('Train', 4), ('Valid', 2), ('Test', 2)):
        for i in range(count):
            pair(root, f'{split}/images/{i}.png', f'{split}/masks/{i}.png', palette, i)
    lines = ['# label:color_rgb:parts:actions',
             *(f'{name}:{",".join(map(str, rgb))}::' for name, rgb in zip(NAMES, COLORS))]
    (root / 'labelmap.txt').write_text('\n'.join(lines))


def voc(root):
    for i in range(6):
        pair(root, f'JPEGImages/2007_{i}.jpg', f'SegmentationClass/2007_{i}.png', color_with_void, i)
    (root / 'SegmentationObject').mkdir()
    lists = root / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (root / 'ImageSets/Main').mkdir()
    (root / 'ImageSets/Main/train.txt').write_text('2007_0\n')
    for split, ids in (('train', range(4)), ('val', (4, 5))):
        text = '\r\n'.join(f'2007_{i}' for i in ids) + '\r\n\r\n'
        (lists / f'{split}.txt').write_bytes(text.encode('utf-8-sig'))
    table = [f'{name} {" ".join(map(str, rgb))}' for name, rgb in zip(NAMES, COLORS)]
    (root / 'classes.txt').write_text('\n'.join([*table, 'void 224 224 192']))


def cityscapes(root):
    for split, count in (('train', 4), ('val', 2)):
        for i in range(count):
            stem = f'{split}/ulm/ulm_00000{i}_000019'
            pair(root, f'leftImg8bit/{stem}_leftImg8bit.png', f'gtFine/{stem}_gtFine_labelIds.png', values, i)
            pair(root, f'leftImg8bit/{stem}_leftImg8bit.png', f'gtFine/{stem}_gtFine_color.png', color, i)
            pair(root, f'leftImg8bit/{stem}_leftImg8bit.png', f'gtFine/{stem}_gtFine_instanceIds.png', deep, i)
    (root / 'classes.txt').write_text('23: sky\n7: road\n26: car\n')


def img_dir(root):
    for split, count in (('training', 4), ('validation', 2)):
        for i in range(count):
            pair(root, f'img_dir/{split}/{i}.tif', f'ann_dir/{split}/{i}.png', deep, i)
    (root / 'classes.json').write_text(json.dumps([dict(name=name, id=300 * i + 7) for i, name in enumerate(NAMES)]))


def two_folders(root):
    for i in range(8):
        pair(root, f'Fotos 2016/{i}.jpg', f'von Hand/{i}.png', binary, i)


def side_by_side(root):
    for i in range(8):
        pair(root, f'{i}.jpg', f'{i}_mask.png', grey_rgb, i)


def mixed_suffixes(root):
    for i in range(8):
        end = ('.JPG', '.png', '.jpeg')[i % 3]
        pair(root, f'images/{i}{end}', f'labels/{i}{(".png", ".PNG")[i % 2]}', index, i)


def jpeg_labels(root):
    for i in range(8):
        pair(root, f'images/{i}.png', f'masks/{i}.jpg', lossy, i)
    (root / 'class_dict.csv').write_text(
        'name,r,g,b\n' + '\n'.join(f'{name},{",".join(map(str, rgb))}' for name, rgb in zip(NAMES, COLORS)))


def ones(root):
    for split, count in (('train', 4), ('val', 2), ('test', 2)):
        for i in range(count):
            pair(root, f'train_images/{i}.jpg' if split == 'train' else f'{split}_images/{i}.jpg',
                 f'{split}_masks/{i}.png', from_one, i)


def json_colors(root):
    for i in range(8):
        pair(root, f'inputs/{i}.bmp', f'targets/{i}_L.png', color, i)
    (root / 'label_map.json').write_text(json.dumps({name: list(rgb) for name, rgb in zip(NAMES, COLORS)}))


def plain(root):
    for i in range(8):
        pair(root, f'photos/sub {i % 2}/{i}.webp', f'gt/sub {i % 2}/{i}.png', index, i)
    (root / 'classes.txt').write_text('sky\r\nroad\r\n\r\ncar\r\n', encoding='utf-8-sig')


# What each is drawn by, the option that it needs, and the class in the config of each class of a scene.
FOLDERS = {
    'ade': (ade, ','.join(NAMES), (0, 1, 2)), 'split_above': (split_above, None, (0, 1, 2)),
    'voc': (voc, None, (0, 1, 2)),
    'cityscapes': (cityscapes, None, (0, 1, 2)), 'img_dir': (img_dir, None, (0, 1, 2)),
    'two_folders': (two_folders, None, (0, 0, 1)), 'side_by_side': (side_by_side, ','.join(NAMES), (0, 1, 2)),
    'mixed_suffixes': (mixed_suffixes, ','.join(NAMES), (0, 1, 2)), 'jpeg_labels': (jpeg_labels, None, (0, 1, 2)),
    'ones': (ones, ','.join(NAMES), (0, 1, 2)), 'json_colors': (json_colors, None, (0, 1, 2)),
    'plain': (plain, None, (0, 1, 2))}


def draw(name, root, folders=FOLDERS):
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    folders[name][0](root)
    return root
