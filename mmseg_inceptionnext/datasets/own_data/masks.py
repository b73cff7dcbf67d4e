"""Recognises how label files hold their classes, and which names and colours the classes have."""
import json
import os
import os.path as osp
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from mmseg_inceptionnext.datasets.label_table import LOSSY, Color, pack, read_pixels, unpack
from mmseg_inceptionnext.errors import InputError

from .text import read_text

IGNORED = 255
Value = Union[int, Color]
TABLES = ('classes.txt', 'labelmap.txt', 'label_map.txt', 'label_colors.txt', 'labels.txt', 'class_names.txt',
          'class_dict.csv', 'classes.csv', '_classes.csv', 'label_map.json', 'labelmap.json', 'classes.json',
          'labels.json', 'meta.json', 'obj_class_to_machine_color.json')
HEAD = re.compile(r'(?=.*[,;\t])((class|label|name|id|value|index|pixel|colou?r|red|green|blue|[rgb]|_)[\s,;]*)+',
                  re.IGNORECASE)
RGB = re.compile(r'[\[(]\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\s*[\])]')
HEX = re.compile(r'#([\da-f]{2})([\da-f]{2})([\da-f]{2})\b', re.IGNORECASE)
VOID = {'void', 'unlabeled', 'unlabelled', 'ignore', 'ignored', '255'}  # names of what is no class
MOST_VALUES = 1000  # in all labels: more are no table of classes, but photos or lossy labels


class Classes(NamedTuple):
    """Names of the classes, and where a table says so the value or the colour of each in label files.

    Attributes:
        names, keys: of the classes; ``keys`` are values or colours.
        source: for messages.
        values: of a table that has both, the values.
    """
    names: List[str]
    keys: Optional[List[Value]] = None
    source: str = '--classes'
    values: Optional[List[int]] = None


class Labels(NamedTuple):
    """What the label files hold.

    Attributes:
        kind: ``index``, values of one channel, or ``color``.
        counts: pixels of each value or colour, in all files.
        files: the first file with each of them.
        shapes: height and width of each file.
        lossy: the first file that is a JPEG.
        is_rgb: whether some have three channels.
    """
    kind: str
    counts: Dict[Value, int]
    files: Dict[Value, str]
    shapes: List[Tuple[int, int]]
    lossy: Optional[str] = None
    is_rgb: bool = False


def read_labels(paths: Iterable[str], as_color: bool = False) -> Labels:
    """Reads all labels of a folder; grey values that are saved as RGB count as one channel.

    Args:
        paths: files.
        as_color: of palettes take the colours, not the indices.

    Raises:
        BrokenSampleError: if a file is no image.
        InputError: if they hold more values than a table of classes could.
    """
    counts: Counter = Counter()
    files: Dict[Value, str] = {}
    shapes, lossy, is_color, is_rgb = [], None, False, False
    for path in paths:
        data = Path(path).read_bytes()
        pixels = read_pixels(data, path, as_color)
        shapes.append(pixels.shape[:2])
        lossy = lossy or (path if data.startswith(LOSSY) else None)
        if pixels.ndim == 3:
            is_rgb, is_color = True, is_color or bool((pixels != pixels[..., :1]).any())
        packed, number = np.unique(pack(pixels) if pixels.ndim == 3 else pixels, return_counts=True)
        found = [unpack(value) for value in packed] if pixels.ndim == 3 else [(int(value), ) for value in packed]
        for value, count in zip(found, number):
            counts[value] += int(count)
            files.setdefault(value, path)
        if len(counts) > MOST_VALUES and not lossy:
            raise InputError(f'{path}: with this file the labels hold more than {MOST_VALUES} values or colours, too '
                             'many for classes: are these photos, or labels of instances?')
    merged: Counter = Counter()
    for value, count in counts.items():  # of grey ones one number, or the colour
        merged[(value * 3)[:3] if is_color else value[0]] += count
    first = {(value * 3)[:3] if is_color else value[0]: path for value, path in reversed(files.items())}
    return Labels('color' if is_color else 'index', dict(merged), first, shapes, lossy, is_rgb)


def find_classes(root: str, given: Optional[str]) -> Optional[Classes]:
    """The classes that an option gives, as names or the file of a table, or that a table in the folder names."""
    if given and not osp.isfile(given):
        names = [name.strip() for name in given.split(',') if name.strip()]
        if len(names) == 1 and names[0].lower().endswith(('.txt', '.csv', '.json')):
            raise InputError(f'--classes {given}: no such file')
        _check(names, '--classes')
        return Classes(names)
    folders = [root, *sorted(entry.path for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != '.')]
    paths = [osp.join(folder, name) for folder in folders for name in TABLES]
    path = given or next(filter(osp.isfile, paths), None)
    return read_classes(path) if path else None


def read_classes(path: str) -> Classes:
    """Reads a table of classes.

    Known are a name a line; a line with a name and a colour or a value, in any order (``road 128 64 128``,
    ``road,128,64,128``, ``road #804080``, ``7: road``), or with all of them (``7,road,128,64,128``); CVAT's
    ``road:128,64,128::``; JSON as a list of names, of ``{"name": ..., "color": [r, g, b]}`` or
    ``{"name": ..., "id": 7}``, or as a dict of names or of values or colours.

    Raises:
        InputError: if it holds anything else, or a name or a colour twice.
    """
    text = read_text(path)
    try:
        rows = _from_json(json.loads(text)) if path.lower().endswith('.json') else _from_lines(text)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{path} is no table of classes: {error}; allowed is a class a line, with its colour if the '
                         'labels have colours, such as: road 128 64 128') from error
    names = [row.name for row in rows]
    _check(names, path)
    colors, values = [row.color for row in rows], [row.value for row in rows]
    has_values = None not in values and len(set(values)) == len(rows)
    keys = values if set(colors) == {None} else colors
    if set(keys) == {None}:
        return Classes(names, None, path)
    if None in keys:
        raise InputError(f'{path}: some classes have a colour or a value and others, such as '
                         f'{names[keys.index(None)]!r}, have none; give all or none')
    if len(set(keys)) < len(keys):
        raise InputError(f'{path}: two classes have the same colour or value')
    return Classes(names, keys, path, values if has_values and keys is colors else None)


def is_void(name: str) -> bool:
    """Whether a name is that of what is ignored."""
    return name.lower().strip('_') in VOID


def _check(names: Sequence[str], source: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and not is_void(name)]
    if twice or not names:
        raise InputError(f'{source}: {f"the class {twice[0]!r} is named twice" if twice else "no class is named"}')


class _Row(NamedTuple):
    name: str
    color: Optional[Color] = None
    value: Optional[int] = None


def _from_lines(text: str) -> List[_Row]:
    rows = []
    for line in text.splitlines():
        line = HEX.sub(lambda found: ' '.join(str(int(part, 16)) for part in found.groups()), line.strip())
        line = RGB.sub(r'\1 \2 \3', line)
        if not line or line.startswith('#') or HEAD.fullmatch(line) and not rows:
            continue
        cvat = re.fullmatch(r'([^:]+):(\d+),(\d+),(\d+):.*', line)
        numbers_last = re.fullmatch(r'(.*?)[\s,;:=]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)', line)
        numbers_first = re.fullmatch(r'(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;:=]+(.*)', line)
        if cvat or numbers_last:
            line, *color = (cvat or numbers_last).groups()
        elif numbers_first:
            *color, line = numbers_first.groups()
        else:
            color = None
        value_first = re.fullmatch(r'(\d+)\s*[,;:=\t]\s*(.+)|(\d+) +(\D.*)', line)
        value_last = re.fullmatch(r'(.*?)\s*[,;:=\t]\s*(\d+)', line)
        value = None
        if value_first:
            value, line = [part for part in value_first.groups() if part is not None]
        elif value_last:
            line, value = value_last.groups()
        rows.append(_Row(line.strip(' "'), color and tuple(map(int, color)), None if value is None else int(value)))
    return rows


def _from_json(content) -> List[_Row]:
    if isinstance(content, dict):
        content = next((content[key] for key in ('classes', 'labels', 'categories')
                        if isinstance(content.get(key), (list, dict))), content)
    if isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), (list, dict)):
        content = next(iter(content.values()))  # {"label_map": {...}}
    if isinstance(content, dict):
        content = [_row_of_pair(key, value) for key, value in content.items()]
    rows = []
    for row in content:
        row = dict(name=row) if isinstance(row, str) else row
        name = next((row[key] for key in ('name', 'label', 'class', 'title', 'classTitle') if key in row), None)
        if name is None:
            raise ValueError(f'{row!r:.100} has no name')
        color = next((row[key] for key in ('color', 'colour', 'rgb') if key in row), None)
        if isinstance(color, str):
            color = [int(color.lstrip('#')[i:i + 2], 16) for i in (0, 2, 4)]
        value = next((row[key] for key in ('value', 'id', 'index') if key in row), None)
        value = int(value) if str(value).isdigit() else None  # some have ids that are texts
        rows.append(_Row(str(name), color and tuple(map(int, color[:3])), value))
    return rows


def _row_of_pair(key: str, value) -> dict:
    """An entry of {"road": [128, 64, 128]}, {"road": "#804080"}, {"#804080": "road"}, {"road": 7} or {"7": "road"}."""
    if isinstance(value, dict):
        return dict(dict(name=key), **value)
    if HEX.fullmatch(key):
        return dict(name=value, color=key)
    if isinstance(value, list) or isinstance(value, str) and HEX.fullmatch(value):
        return dict(name=key, color=value)
    return dict(name=value, id=int(key)) if isinstance(value, str) else dict(name=key, id=value)
