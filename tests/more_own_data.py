"""Draws further members of each kind of folder, label and table that make_config knows; see own_data.py."""
import json

import numpy as np
from own_data import COLORS, DRAWN, NAMES, color, grey_rgb, index, pair, values
from PIL import Image

ALL = ','.join(NAMES)
HEX = ['#{:02X}{:02x}{:02x}'.format(*rgb) for rgb in COLORS]
RGB = [' '.join(map(str, rgb)) for rgb in COLORS]


def lines(*parts):
    return '\n'.join(' '.join(map(str, row)) for row in zip(*parts)) + '\n'


def several(root, image='images/{}.jpg', label='labels/{}.png', save=index, count=4):
    for i in range(count):
        pair(root, image.format(i), label.format(i), save, i)


def in_splits(root, image, label, save=index, names=('train', 'val')):
    for name in names:
        several(root, image.replace('SPLIT', name), label.replace('SPLIT', name), save, 3)


def with_table(name, text, save=index, **kwargs):
    """A folder whose classes stand in a file."""
    def make(root):
        several(root, save=save, **kwargs)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return make


def bits(label, path):
    Image.fromarray(label == 2).save(path)


def white_car(label, path):
    Image.fromarray((label == 2) * np.uint8(255)).save(path)


def grey(label, path):
    index(label * 100, path)


def floats(label, path):
    Image.fromarray(label.astype(np.float32)).save(path)


def from_one(label, path):
    index(label + 1, path)


def from_one_rgb(label, path):
    grey_rgb(label + 1, path)


def transparent(label, path):
    image = Image.fromarray(label, mode='P')
    image.putpalette([part for rgb in COLORS for part in rgb])
    image.save(path, transparency=bytes([0, 255, 128]))


def rgba(label, path):
    alpha = np.where(label == 2, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([np.array(COLORS, np.uint8)[label], alpha])).save(path)


def on_black(label, path):
    pixels = np.array(COLORS, np.uint8)[label]
    pixels[label == 0] = 0
    Image.fromarray(pixels).save(path)


def roboflow(root):
    in_splits(root, 'SPLIT/b_jpg.rf.{}a0.jpg', 'SPLIT/b_jpg.rf.{}a0_mask.png', names=('train', 'valid'))
    (root / 'train/_classes.csv').write_text('Pixel Value, Class\n0, sky\n1, road\n2, car\n')


def linked(root):
    in_splits(root, 'real/images/SPLIT/{}.jpg', 'real/labels/SPLIT/{}.png')
    (root / 'real').rename(root.parent / 'elsewhere')
    for name in ('images', 'labels'):
        (root / name).symlink_to(root.parent / 'elsewhere' / name)
    for path in [path for path in DRAWN if path.startswith(str(root / 'real'))]:
        DRAWN[path.replace('/real/', '/')] = DRAWN.pop(path)


def with_hidden(root):
    in_splits(root, 'images/SPLIT/{}.jpg', 'labels/SPLIT/{}.png')
    for path in ('images/train/Thumbs.db', 'images/train/._0.jpg', '__MACOSX/images/train/._0.jpg',
                 'images/train/.ipynb_checkpoints/0-checkpoint.jpg'):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes((root / 'images/train/1.jpg').read_bytes())


def listed(root):
    several(root)
    (root / 'train_list.txt').write_text('images/0.jpg labels/0.png\n/home/me/images/1.jpg\n'.replace('\n', '\r\n'),
                                         encoding='utf-16', newline='')
    (root / 'val_list.txt').write_bytes('\ufeff2.jpg\r\n\r\n 3 \r\n4\r\n'.encode())


def blind(root):
    stem = 'SPLIT/ulm/ulm_{}'
    in_splits(root, f'leftImg8bit/{stem}_leftImg8bit.png', f'gtFine/{stem}_gtFine_labelIds.png', values)
    pair(root, 'leftImg8bit/test/b/b_1_leftImg8bit.png', 'gtFine/test/b/b_1_gtFine_labelIds.png',
         lambda label, path: index(0 * label + 3, path), 1)
    (root / 'classes.txt').write_text('23: sky\n7: road\n26: car\n0: void\n3: void')


def odd_names(root):
    for i, name in enumerate(('a.b.c', 'über, straße', '100%', "it's #1", '[a]', 'a.png.x')):
        pair(root, f'images/{name}.jpg', f'labels/{name}.png', index, i)


def turned(root):
    several(root)
    image, exif = Image.open(root / 'images/0.jpg').transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    image.save(root / 'images/0.jpg', exif=exif)


def kitti(root):
    several(root, 'training/image_2/{}.png', 'training/semantic_rgb/{}.png', color)
    several(root, 'training/image_2/{}.png', 'training/semantic/{}.png')


CATEGORIES = [dict(id=i, name=name, color=rgb) for i, name, rgb in zip((23, 7, 26), NAMES, COLORS)]
META = dict(classes=[dict(title=name, shape='bitmap', color=rgb, id=100) for name, rgb in zip(NAMES, HEX)], tags=[])
# As FOLDERS in own_data.py.
MORE = {
    'annot': (lambda root: in_splits(root, 'SPLIT/{}.png', 'SPLITannot/{}.png'), ALL, (0, 1, 2)),
    'one_role': (lambda root: in_splits(root, 'SPLIT/{}.png', 'SPLIT_labels/{}_L.png'), ALL, (0, 1, 2)),
    'roboflow': (roboflow, None, (0, 1, 2)),
    'same_name': (lambda root: in_splits(root, 'SPLIT/{}.jpg', 'SPLIT/{}.png'), ALL, (0, 1, 2)),
    'both_endings': (lambda root: several(root, '{}_image.png', '{}_mask.png'), ALL, (0, 1, 2)),
    'any_above': (lambda root: in_splits(root, 'Fotos/SPLIT/{}.jpg', 'Hand/SPLIT/{}.png'), ALL, (0, 1, 2)),
    'any_below': (lambda root: in_splits(root, 'SPLIT/Fotos/{}.jpg', 'SPLIT/Hand/{}.png'), ALL, (0, 1, 2)),
    'linked': (linked, ALL, (0, 1, 2)), 'with_hidden': (with_hidden, ALL, (0, 1, 2)),
    'listed': (listed, ALL, (0, 1, 2)), 'blind': (blind, None, (0, 1, 2)), 'odd_names': (odd_names, ALL, (0, 1, 2)),
    'turned': (turned, ALL, (0, 1, 2)), 'kitti': (kitti, ALL, (0, 1, 2)),
    'bits': (lambda root: several(root, save=bits), 'other,car', (0, 0, 1)),
    'gif': (lambda root: several(root, label='labels/{}_mask.gif', save=bits), None, (0, 0, 1)),
    'binary_jpeg': (lambda root: several(root, label='labels/{}.jpg', save=white_car), None, (0, 0, 1)),
    'grey_jpeg': (with_table('classes.txt', '0 sky\n100 road\n200 car', grey, label='labels/{}.jpg'), None, (0, 1, 2)),
    'floats': (lambda root: several(root, label='labels/{}.tif', save=floats), ALL, (0, 1, 2)),
    'transparent': (with_table('classes.txt', lines(NAMES, RGB), transparent), None, (0, 1, 2)),
    'rgba': (with_table('label_colors.txt', lines(RGB, NAMES), rgba), None, (0, 1, 2)),
    'white_first': (with_table('classes.txt', 'car 255 255 255\nother 0 0 0', white_car), None, (1, 1, 0)),
    'cvat': (with_table('labelmap.txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\n'
                        'road:128,64,128::\ncar:0,0,142::', on_black), None, (0, 1, 2)),
    'supervisely': (with_table('meta.json', json.dumps(META), color), None, (0, 1, 2)),
    'machine': (with_table('obj_class_to_machine_color.json', json.dumps({
        name: [i + 1] * 3 for i, name in enumerate(NAMES)}), from_one_rgb), None, (0, 1, 2)),
    'labelme': (with_table('labels.txt', lines(['__ignore__', *NAMES])), None, (0, 1, 2)),
    'void_first': (with_table('labels.txt', lines(['void', *NAMES]), from_one), None, (0, 1, 2)),
    'coco': (with_table('label_map.json', json.dumps(dict(info={}, categories=CATEGORIES)), values), None, (0, 1, 2)),
    'hex': (with_table('classes.txt', lines(NAMES, HEX), color), None, (0, 1, 2)),
    'brackets': (with_table('classes.txt', lines(NAMES, [':'] * 3, map(list, COLORS)), color), None, (0, 1, 2)),
    'csv': (with_table('classes.csv', 'id,name,r,g,b\n' + lines(range(3), NAMES, RGB).replace(' ', ','), color), None,
            (0, 1, 2)),
    'json_hex': (with_table('classes.json', json.dumps(dict(zip(HEX, NAMES))), color), None, (0, 1, 2)),
    'utf16': (with_table('classes.txt', '\r\n'.join(NAMES).encode('utf-16')), None, (0, 1, 2))}
