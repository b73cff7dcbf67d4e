"""Kinds of broken and unusual files, and what becomes of each: the rows of docs/broken_files.md and their tests."""
import io
import struct
import zlib
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import cv2
import numpy as np
from PIL import Image

SIZE = 96, 128  # height and width
_rng = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(_rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8), (0, 0), 3)  # RGB
LABEL = np.kron(_rng.integers(0, 11, (6, 8)), np.ones((16, 16))).astype(np.uint8)  # the eleven classes of CamVid
LABEL[:4] = 255
INNER = np.roll(np.clip(LABEL, 3, 7), 3, (0, 1))  # classes whose neighbours are classes too
GREY, BITS = PICTURE.mean(2).astype(np.uint8), (LABEL % 2).astype(np.uint8)


def encode(array, kind, mode=None, **options) -> bytes:
    """An array or an image as the bytes of a file."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(array=PICTURE, **options) -> bytes:
    return encode(array, 'JPEG', quality=95, **options)


def png(array=PICTURE, **options) -> bytes:
    return encode(array, 'PNG', **options)


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif)


def with_thumbnail() -> bytes:
    """A JPEG inside a segment of a JPEG, with its own end-of-image marker, as cameras write it."""
    content = b'Exif\0\0' + jpeg(cv2.resize(PICTURE, (32, 24)))
    return jpeg()[:2] + b'\xff\xe1' + struct.pack('>H', len(content) + 2) + content + jpeg()[2:]


def zeroed(data: bytes) -> bytes:
    """Zeros in place of a twentieth of a file, in its middle."""
    half, count = len(data) // 2, len(data) // 20
    return data[:half] + bytes(count) + data[half + count:]


def half(data: bytes) -> bytes:
    return data[:len(data) // 2]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png_from_rows(array, rows: int, size=SIZE) -> bytes:
    """A PNG of which the first rows are there, with right checksums."""
    content = b''.join(b'\0' + row.tobytes() for row in array[:rows])
    header = struct.pack('>IIBBBBB', size[1], size[0], 8, 2 if array.ndim == 3 else 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(content)) +
            chunk(b'IEND', b''))


def wrong_checksum(data: bytes) -> bytes:
    """A PNG of which the pixels are right, and the checksum of their chunk is not."""
    start = data.index(b'IDAT')
    end = start + 4 + struct.unpack('>I', data[start - 4:start])[0]
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1:]


def alpha(array, value: int) -> np.ndarray:
    return np.dstack([array, np.full(SIZE, value, np.uint8)])


def as_palette(array) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    return image





class Sample(NamedTuple):
    """Where the files of the sample in question go: ``bad``, beside a good one."""
    image: Path
    label: Path


def image(data: Callable[[], bytes]) -> Callable[[Sample], None]:
    return lambda sample: sample.image.write_bytes(data())


def label(data: Callable[[], bytes]) -> Callable[[Sample], None]:
    return lambda sample: sample.label.write_bytes(data())


def both(image_data: bytes, label_data: bytes) -> Callable[[Sample], None]:
    def write(sample):
        sample.image.write_bytes(image_data)
        sample.label.write_bytes(label_data)
    return write


def renamed(kind: str, name: str) -> Callable[[Sample], None]:
    def write(sample):
        path = getattr(sample, kind)
        path.rename(path.with_name(name))
    return write


def pair_renamed(stem: str) -> Callable[[Sample], None]:
    def write(sample):
        for path in sample:
            path.rename(path.with_name(stem + path.suffix))
    return write



def instead(kind: str, make: Callable[[Path], None]) -> Callable[[Sample], None]:
    """Something else in place of a file."""
    def write(sample):
        path = getattr(sample, kind)
        path.unlink()
        make(path)
    return write


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name('nowhere'))


ABSENT = 'not in the dataset'


class Case(NamedTuple):
    """A kind of file.

    Attributes:
        name: what it is.
        write: puts it in place of a good file.
        check: of ``tools/check_dataset.py``: ``fine``, ``error`` or ``warning``.
        train: ``fine``: pixels and labels are those that are meant; ``differs``: training goes on, with others;
            ``stops``, or is replaced with ``on_error='skip'``; ``stops always``; ``not in the dataset``.
        infer: of ``tools/infer.py``: ``fine``, ``differs`` or ``fails``; empty for labels.
        words: of the messages.
        picture, classes: what is meant, H x W x 3, RGB, and H x W.
    """
    name: str
    write: Callable[[Sample], None]
    check: str = 'fine'
    train: str = 'fine'
    infer: str = 'fine'
    words: str = ''
    picture: np.ndarray = PICTURE
    classes: Optional[np.ndarray] = LABEL


def unreadable(name: str, write, words: str = '', is_label: bool = False) -> Case:
    return Case(name, write, 'error', 'stops', '' if is_label else 'fails', words)


def label_case(name: str, write, check: str = 'fine', train: str = 'fine', words: str = '', **options) -> Case:
    return Case(name, write, check, train, '', words, **options)


def wrong_label(name: str, data: Callable[[], bytes], words: str) -> Case:
    """A label that can be read and does not fit."""
    return label_case(name, label(data), 'error', 'stops always', words)


IMAGES = [
    unreadable('empty file', image(bytes), 'is empty'),
    unreadable('JPEG cut in half', image(lambda: half(jpeg())), 'truncated'),
    unreadable('JPEG without its last two bytes', image(lambda: jpeg()[:-2]), 'truncated'),
    unreadable('JPEG with a thumbnail, cut in half', image(lambda: half(with_thumbnail())), 'truncated'),
    Case('JPEG with a block of zeros in the middle', image(lambda: zeroed(jpeg())), 'fine', 'differs', 'differs'),
    unreadable('byte order mark before a JPEG', image(lambda: b'\xef\xbb\xbf' + jpeg()), 'begins with'),
    Case('other bytes after the end of a JPEG', image(lambda: jpeg() + b'trailer' * 9)),
    Case('JPEG with a thumbnail', image(with_thumbnail)),
    Case('progressive JPEG', image(lambda: jpeg(progressive=True))),
    Case('CMYK JPEG', image(lambda: jpeg(Image.fromarray(PICTURE).convert('CMYK')))),
    Case('grey JPEG', image(lambda: jpeg(GREY)), picture=np.dstack([GREY] * 3)),
    Case('JPEG turned by 90 degrees in EXIF, label not turned', image(lambda: oriented(6)), 'error', 'stops always',
         words='EXIF orientation', picture=np.rot90(PICTURE, -1)),
    Case('JPEG turned by 90 degrees in EXIF, label turned', both(oriented(6), png(np.rot90(LABEL, -1))),
         picture=np.rot90(PICTURE, -1), classes=np.rot90(LABEL, -1)),
    Case('JPEG turned by 180 degrees in EXIF', image(lambda: oriented(3)), 'fine', 'differs', 'differs'),
    unreadable('PNG cut in half', image(lambda: half(png())), 'is cut off'),
    unreadable('PNG with a wrong checksum', image(lambda: wrong_checksum(png())), 'is cut off or damaged'),
    unreadable('PNG with rows missing, checksums right', image(lambda: png_from_rows(PICTURE, 40)), 'cv2'),
    unreadable('PNG whose header says 100000 x 100000', image(lambda: png_from_rows(PICTURE, 40, (10**5, 10**5)))),
    Case('16-bit PNG', image(lambda: cv2.imencode('.png', PICTURE[..., ::-1].astype(np.uint16) * 257)[1].tobytes())),
    Case('RGBA PNG', image(lambda: png(alpha(PICTURE, 128)))),
    Case('1-bit PNG', image(lambda: png(BITS.astype(bool))), picture=np.dstack([BITS * 255] * 3)),
    Case('PNG named .jpg', image(png)),
    Case('WebP named .jpg', image(lambda: encode(PICTURE, 'WEBP', lossless=True))),
    unreadable('WebP cut in half', image(lambda: half(encode(PICTURE, 'WEBP')))),
    Case('TIFF named .jpg', image(lambda: encode(PICTURE, 'TIFF'))),
    unreadable('TIFF cut in half', image(lambda: half(encode(PICTURE, 'TIFF'))), 'truncated'),
    unreadable('TIFF of 32-bit floats', image(lambda: encode(GREY / np.float32(255), 'TIFF')), 'cv2'),
    unreadable('BMP cut in half', image(lambda: half(encode(PICTURE, 'BMP'))), 'truncated'),
    unreadable('text file', image(lambda: b'404: not found'), 'begins with'),
    Case('a folder in place of the image', instead('image', Path.mkdir), 'error', ABSENT, 'fails'),
    Case('a link to nothing in place of the image', instead('image', link_to_nothing), 'error', ABSENT, 'fails'),
    unreadable('no permission to read', lambda sample: sample.image.chmod(0), 'Permission denied'),
    Case('1 x 1 pixel, and its label', both(jpeg(PICTURE[:1, :1]), png(LABEL[8:9, :1])), 'error', 'stops always',
         words='side of one pixel', picture=PICTURE[:1, :1]),
    Case('suffix in upper case', renamed('image', 'bad.JPG')),
    Case('spaces and letters that are not ASCII in the name', pair_renamed('b\u00e4d \u5f71 1')),
    Case('image without label', lambda sample: sample.label.unlink(), 'error', 'stops', words='No such file'),
    Case('label without image', lambda sample: sample.image.unlink(), 'error', ABSENT, 'fails'),
]

LABELS = [
    unreadable('empty file', label(bytes), 'is empty', True),
    unreadable('PNG cut in half', label(lambda: half(png(LABEL))), 'is cut off', True),
    unreadable('PNG with a wrong checksum', label(lambda: wrong_checksum(png(LABEL))), 'is cut off or damaged', True),
    label_case('PNG with rows missing, checksums right', label(lambda: png_from_rows(LABEL, 40)), 'fine', 'differs'),
    unreadable('PNG whose header says 100000 x 100000', label(lambda: png_from_rows(LABEL, 40, (10**5, 10**5))),
               is_label=True),
    label_case('palette PNG', label(lambda: png(as_palette(LABEL)))),
    label_case('1-bit PNG', label(lambda: png(BITS.astype(bool))), classes=BITS),
    label_case('16-bit PNG, values to 255', label(lambda: png(LABEL.astype(np.uint16)))),
    wrong_label('16-bit PNG, values above', lambda: png(LABEL.astype(np.uint16) + 256), 'no 8-bit integers'),
    wrong_label('TIFF of 32-bit floats, fractions', lambda: encode(LABEL / np.float32(255), 'TIFF'),
                'no 8-bit integers'),
    wrong_label('in colours (RGB)', lambda: png(PICTURE), '3 channels'),
    wrong_label('class ids, saved as RGB', lambda: png(np.dstack([LABEL] * 3)), 'all channels are equal'),
    wrong_label('class ids with alpha (LA)', lambda: png(Image.fromarray(alpha(LABEL, 255), 'LA')), '2 channels'),
    label_case('JPEG named .png', label(lambda: jpeg(INNER)), 'fine', 'differs', classes=INNER),
    label_case('GIF named .png, renumbered by the program that wrote it', label(lambda: encode(INNER, 'GIF')), 'fine',
               'differs', classes=INNER),
    wrong_label('of another size', lambda: png(LABEL[:, :64]), '96 x 64 pixels'),
    wrong_label('values above the last class', lambda: png(np.where(LABEL == 3, 11, LABEL).astype(np.uint8)),
                'label values 11'),
    label_case('all pixels 255', label(lambda: png(np.full(SIZE, 255, np.uint8))), 'warning',
               words='all pixels are ignored', classes=np.full(SIZE, 255, np.uint8)),
    unreadable('text file', label(lambda: b'404: not found'), 'begins with', True),
    unreadable('a link to nothing in place of the label', instead('label', link_to_nothing), 'is a link to', True),
    unreadable('no permission to read', lambda sample: sample.label.chmod(0), 'Permission denied', True),
]


def is_locked(path: Path) -> bool:
    """Whether nobody may read a file: root can, so tests of that simulate it."""
    return path.is_file() and not path.stat().st_mode & 0o444


def table() -> str:
    """The tables of docs/broken_files.md."""
    parts = []
    for title, cases in (('Images', IMAGES), ('Labels', LABELS)):
        columns = ('name', 'check', 'train', 'infer')[:4 if title == 'Images' else 3]
        rows = [['file', '`check_dataset.py`', 'training', '`infer.py`'][:len(columns)], ['---'] * len(columns)]
        rows += [[getattr(case, column) for column in columns] for case in cases]
        parts.append(f'## {title}\n\n' + '\n'.join(f'| {" | ".join(row)} |' for row in rows))
    return '\n\n'.join(parts) + '\n'


def put_good_files(root: Path) -> Sample:
    """Writes a good sample and the one that a case changes."""
    for folder in ('images/train', 'annotations/train'):
        (root / folder).mkdir(parents=True)
    for name in ('good', 'bad'):
        sample = Sample(root / f'images/train/{name}.jpg', root / f'annotations/train/{name}.png')
        both(jpeg(), png(LABEL))(sample)
    return sample
