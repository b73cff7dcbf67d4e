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


def gif(array, **options) -> bytes:
    return encode(as_palette(array), 'GIF', optimize=False, **options)


def animated_png() -> bytes:
    return png(save_all=True, append_images=[Image.fromarray(255 - PICTURE)])


GIF_PICTURE = np.array(Image.fromarray(PICTURE).quantize(64).convert('RGB'))
READS_GIF = cv2.imdecode(np.frombuffer(encode(GREY, 'GIF'), np.uint8), cv2.IMREAD_COLOR) is not None


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


def all_images_named(suffix: str) -> Callable[[Sample], None]:
    def write(sample):
        for path in sorted(sample.image.parent.iterdir()):
            path.rename(path.with_suffix(suffix))
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


class Case(NamedTuple):
    """A kind of file.

    Attributes:
        name: what it is.
        write: puts it in place of a good file.
        check: of ``tools/check_dataset.py``: ``fine``, or ``error: `` or ``warning: `` and words of the message.
        train: ``fine``: pixels and labels are those that are meant; ``differs: ``: training goes on, with others, and
            why; ``stops: ``: and words of the message, replaced with ``on_error='skip'``; ``stops always: ``: the same,
            not replaced; ``not in the dataset``.
        infer: of ``tools/infer.py``: ``fine``, ``differs: `` or ``fails: ``; empty for labels.
        picture, classes: what is meant, H x W x 3, RGB, and H x W.
        options: of the dataset.
    """
    name: str
    write: Callable[[Sample], None]
    check: str = 'fine'
    train: str = 'fine'
    infer: str = 'fine'
    picture: np.ndarray = PICTURE
    classes: Optional[np.ndarray] = LABEL
    options: dict = {}


def unreadable(name: str, write, words: str, is_label: bool = False) -> Case:
    """A file by which all three stop for the same reason."""
    return Case(name, write, f'error: {words}', f'stops: {words}', '' if is_label else f'fails: {words}')


def label_case(name: str, write, check: str = 'fine', train: str = 'fine', **options) -> Case:
    return Case(name, write, check, train, '', **options)


def misfit(name: str, write, words: str, **options) -> Case:
    """A label that is whole and wrong."""
    return label_case(name, write, f'error: {words}', f'stops always: {words}', **options)


NO_END, NO_IEND = 'the JPEG has no end-of-image marker', 'the PNG has no IEND chunk'
CHECKSUM = 'the checksum of the PNG chunk IDAT is wrong'
FOREIGN = 'is no image that cv2 can decode; it begins with'
CORRUPT = 'the decoder says: Corrupt JPEG data'
MADE_UP = 'differs: pixels are made up from the damage on'
GIF_LABEL = 'warning: a GIF numbers its colours'
ABSENT = 'not in the dataset'
IF_GIF = ' if OpenCV reads GIF, else '

IMAGES = [
    unreadable('empty file', image(bytes), 'is empty'),
    unreadable('JPEG cut in half', image(lambda: half(jpeg())), NO_END),
    unreadable('JPEG without its last two bytes', image(lambda: jpeg()[:-2]), NO_END),
    unreadable('JPEG with a thumbnail, cut in half', image(lambda: half(with_thumbnail())), NO_END),
    Case('JPEG with a block of zeros in the middle', image(lambda: zeroed(jpeg())), f'error: {CORRUPT}', MADE_UP,
         MADE_UP),
    Case('JPEG cut in half, with an end-of-image marker', image(lambda: half(jpeg()) + b'\xff\xd9'),
         f'error: {CORRUPT}', MADE_UP, MADE_UP),
    unreadable('byte order mark before a JPEG', image(lambda: b'\xef\xbb\xbf' + jpeg()), FOREIGN),
    Case('other bytes after the end of a JPEG', image(lambda: jpeg() + b'trailer' * 9)),
    Case('JPEG with a thumbnail', image(with_thumbnail)),
    Case('progressive JPEG', image(lambda: jpeg(progressive=True))),
    Case('JPEG with an ICC profile', image(lambda: jpeg(icc_profile=bytes(200)))),
    Case('CMYK JPEG', image(lambda: jpeg(Image.fromarray(PICTURE).convert('CMYK')))),
    Case('grey JPEG', image(lambda: jpeg(GREY)), picture=np.dstack([GREY] * 3)),
    Case('JPEG turned by 90 degrees in EXIF, label not turned', image(lambda: oriented(6)),
         'error: an EXIF orientation may have turned it', 'stops always: an EXIF orientation may have turned it',
         picture=np.rot90(PICTURE, -1)),
    Case('JPEG turned by 90 degrees in EXIF, label turned', both(oriented(6), png(np.rot90(LABEL, -1))),
         picture=np.rot90(PICTURE, -1), classes=np.rot90(LABEL, -1)),
    Case('JPEG turned by 180 degrees in EXIF', image(lambda: oriented(3)), 'warning: its EXIF orientation is 3',
         'differs: the image is turned, the label is not', 'differs: the image is turned'),
    unreadable('PNG cut in half', image(lambda: half(png())), NO_IEND),
    unreadable('PNG without its last chunk', image(lambda: png()[:-12]), NO_IEND),
    unreadable('PNG with a wrong checksum', image(lambda: wrong_checksum(png())), CHECKSUM),
    unreadable('PNG with rows missing, checksums right', image(lambda: png_from_rows(PICTURE, 40)), FOREIGN),
    unreadable('PNG whose header says 100000 x 100000', image(lambda: png_from_rows(PICTURE, 40, (10**5, 10**5))),
               'cannot be decoded by cv2'),
    Case('16-bit PNG', image(lambda: cv2.imencode('.png', PICTURE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()),
         'warning: has more than 8 bits a channel'),
    Case('16-bit grey PNG', image(lambda: png(GREY.astype(np.uint16) * 257)),
         'warning: has more than 8 bits a channel', picture=np.dstack([GREY] * 3)),
    Case('RGBA PNG, opaque', image(lambda: png(alpha(PICTURE, 255)))),
    Case('RGBA PNG, half transparent', image(lambda: png(alpha(PICTURE, 128))), 'warning: has transparent pixels'),
    Case('grey PNG with alpha (LA), half transparent', image(lambda: png(Image.fromarray(alpha(GREY, 128), 'LA'))),
         'warning: has transparent pixels', picture=np.dstack([GREY] * 3)),
    Case('palette PNG', image(lambda: png(Image.fromarray(PICTURE).quantize(64))), picture=GIF_PICTURE),
    Case('1-bit PNG', image(lambda: png(BITS.astype(bool))), picture=np.dstack([BITS * 255] * 3)),
    Case('animated PNG', image(animated_png), 'warning: has 2 frames; the first is read'),
    Case('PNG named .jpg', image(png)),
    Case('JPEG named .png', all_images_named('.png'), options=dict(img_suffix='.png')),
    Case('WebP named .jpg', image(lambda: encode(PICTURE, 'WEBP', lossless=True))),
    unreadable('WebP cut in half', image(lambda: half(encode(PICTURE, 'WEBP'))), 'is damaged'),
    Case('TIFF named .jpg', image(lambda: encode(PICTURE, 'TIFF'))),
    unreadable('TIFF cut in half', image(lambda: half(encode(PICTURE, 'TIFF'))), 'is damaged'),
    unreadable('TIFF of 32-bit floats', image(lambda: encode(GREY / np.float32(255), 'TIFF')), FOREIGN),
    unreadable('BMP cut in half', image(lambda: half(encode(PICTURE, 'BMP'))), 'is damaged'),
    Case('GIF named .jpg', image(lambda: encode(Image.fromarray(PICTURE).quantize(64), 'GIF')),
         *(f'fine{IF_GIF}{word}: {FOREIGN}' for word in ('error', 'stops', 'fails')), picture=GIF_PICTURE),
    unreadable('text file', image(lambda: b'404: not found'), FOREIGN),
    Case('a folder in place of the image', instead('image', Path.mkdir), 'error: is a folder', ABSENT,
         'fails: is a folder'),
    Case('a link to nothing in place of the image', instead('image', link_to_nothing), 'error: links to nothing',
         ABSENT, 'fails: no such file'),
    unreadable('no permission to read', lambda sample: sample.image.chmod(0), 'cannot be opened: Permission denied'),
    Case('1 x 1 pixel, and its label', both(jpeg(PICTURE[:1, :1]), png(LABEL[8:9, :1])),
         'error: the label has a side of one pixel', 'stops always: the label has a side of one pixel',
         picture=PICTURE[:1, :1]),
    Case('suffix in upper case', renamed('image', 'bad.JPG'), 'error: bad.jpg is not there', ABSENT),
    Case('spaces and letters that are not ASCII in the name', pair_renamed('b\u00e4d \u5f71 1')),
    Case('image without label', lambda sample: sample.label.unlink(), 'error: No such file or directory',
         'stops: No such file or directory'),
    Case('label without image', lambda sample: sample.image.unlink(), 'error: bad.jpg is not there', ABSENT,
         'fails: no such file'),
]

LABELS = [
    unreadable('empty file', label(bytes), 'is empty', True),
    unreadable('PNG cut in half', label(lambda: half(png(LABEL))), NO_IEND, True),
    unreadable('PNG with a wrong checksum', label(lambda: wrong_checksum(png(LABEL))), CHECKSUM, True),
    label_case('PNG with rows missing, checksums right', label(lambda: png_from_rows(LABEL, 40)),
               f'error: {FOREIGN}', 'differs: the rows that are missing become the value 0'),
    unreadable('PNG whose header says 100000 x 100000', label(lambda: png_from_rows(LABEL, 40, (10**5, 10**5))),
               'cannot be decoded by pillow', True),
    label_case('palette PNG', label(lambda: png(as_palette(LABEL)))),
    label_case('1-bit PNG', label(lambda: png(BITS.astype(bool))), classes=BITS),
    label_case('16-bit PNG, values to 255', label(lambda: png(LABEL.astype(np.uint16)))),
    misfit('16-bit PNG, values above', label(lambda: png(LABEL.astype(np.uint16) + 256)), 'that are no 8-bit integers'),
    label_case('TIFF of 32-bit floats, whole numbers', label(lambda: encode(LABEL.astype(np.float32), 'TIFF'))),
    misfit('TIFF of 32-bit floats, fractions', label(lambda: encode(LABEL / np.float32(255), 'TIFF')),
           'that are no 8-bit integers'),
    misfit('in colours (RGB)', label(lambda: png(PICTURE)), 'the label has 3 channels'),
    misfit('class ids, saved as RGB', label(lambda: png(np.dstack([LABEL] * 3))), 'here all channels are equal'),
    misfit('in colours with alpha (RGBA)', label(lambda: png(alpha(PICTURE, 255))), 'the label has 4 channels'),
    misfit('class ids with alpha (LA)', label(lambda: png(Image.fromarray(alpha(LABEL, 255), 'LA'))),
           'the label has 2 channels'),
    label_case('JPEG', label(lambda: jpeg(INNER)), 'error: a JPEG does not keep the values',
               'differs: compression changes the classes', classes=INNER),
    label_case('GIF named .png, values kept', label(lambda: gif(LABEL)), GIF_LABEL),
    label_case('GIF named .png, renumbered by the program that wrote it', label(lambda: encode(INNER, 'GIF')),
               GIF_LABEL, 'differs: values became numbers of colours', classes=INNER),
    label_case('animated GIF named .png', label(lambda: gif(LABEL, save_all=True, append_images=[as_palette(INNER)])),
               GIF_LABEL),
    misfit('of another size', label(lambda: png(LABEL[:, :64])), 'the label has 96 x 64 pixels'),
    misfit('values above the last class', label(lambda: png(np.where(LABEL == 3, 11, LABEL).astype(np.uint8))),
           'the label values 11'),
    label_case('all pixels 255', label(lambda: png(np.full(SIZE, 255, np.uint8))),
               'warning: all pixels are ignored', classes=np.full(SIZE, 255, np.uint8)),
    unreadable('text file', label(lambda: b'404: not found'), 'is no image that pillow can decode', True),
    unreadable('a folder in place of the label', instead('label', Path.mkdir), 'Is a directory', True),
    unreadable('a link to nothing in place of the label', instead('label', link_to_nothing), 'is a link to', True),
    unreadable('no permission to read', lambda sample: sample.label.chmod(0), 'cannot be opened: Permission denied',
               True),
    unreadable('suffix in upper case', renamed('label', 'bad.PNG'), 'No such file or directory', True),
]


def is_locked(path: Path) -> bool:
    """Whether nobody may read a file: root can, so tests of that simulate it."""
    return path.is_file() and not path.stat().st_mode & 0o444


def resolved(outcome: str) -> str:
    """What holds for the OpenCV that is installed."""
    for_gif, _, otherwise = outcome.partition(IF_GIF)
    return for_gif if READS_GIF or not otherwise else otherwise


def table() -> str:
    """The tables of docs/broken_files.md."""
    parts = []
    for title, cases in (('Images', IMAGES), ('Labels', LABELS)):
        infer = title == 'Images'
        head = ['file', '`check_dataset.py`', 'training'] + ['`infer.py`'] * infer
        rows = [head, ['---'] * len(head)]
        rows += [[case.name, case.check, case.train] + [case.infer] * infer for case in cases]
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
