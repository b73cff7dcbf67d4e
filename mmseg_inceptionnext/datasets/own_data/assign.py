"""Decides which value or colour of the labels is which class, and says so; nothing is guessed silently."""
from typing import Dict, List, NamedTuple, Optional

from mmseg_inceptionnext.errors import InputError

from .masks import IGNORED, Classes, Color, Labels, Value, is_void

MOST_CLASSES = 255  # labels have eight bits in MMSegmentation, and 255 is ignored


class Assignment(NamedTuple):
    """How the labels are read.

    Attributes:
        names: of the classes.
        label_map: the class of each value of label files, 255 for what is ignored; None where they are the same.
        colors: the colour of each class in label files, and of what is ignored; None where labels are no colours.
        notes: sentences on what was decided.
        palette: the colours of a table that labels of one channel do not use.
    """
    names: List[str]
    label_map: Optional[Dict[int, int]]
    colors: Optional[List[Color]]
    notes: List[str]
    palette: Optional[List[Color]] = None


def assign(labels: Labels, classes: Optional[Classes], zero: Optional[str] = None) -> Assignment:
    """Gives each value or colour in the labels a class.

    Args:
        labels: what the files hold.
        classes: names, perhaps with values or colours.
        zero: ``class`` or ``ignore``: what the value 0, or black, is. Default: as the number of the classes says.

    Raises:
        InputError: if that cannot be told; it names the option that tells it.
    """
    if classes is None:
        if labels.kind == 'index' and _is_binary(labels):
            classes = Classes(['background', 'foreground'], None, 'labels of 0 and 255 only')
        else:
            raise InputError(f'nothing names the classes: give them by --classes, as names (a,b,c) or as a file with '
                             f'a class a line{", and its colour" if labels.kind == "color" else ""}. '
                             f'The labels hold {_listed(labels, labels.counts)}')
    if len(classes.names) > MOST_CLASSES:
        raise InputError(f'{classes.source} names {len(classes.names)} classes; at most {MOST_CLASSES} are possible, '
                         'as labels have eight bits in training, and 255 is ignored')
    found = _assign(labels, classes, zero)
    if len(found.names) < 2:
        raise InputError(f'{classes.source} names one class, {", ".join(found.names)}, and a network needs two to tell '
                         'apart: name what is around it, too, such as --classes background,car')
    return found


def _assign(labels: Labels, classes: Classes, zero: Optional[str]) -> Assignment:
    if labels.kind == 'color' or labels.lossy:
        return _by_color(labels, classes if labels.kind == 'color' else _as_colors(labels, classes), zero)
    values, has_colors = set(labels.counts) - {IGNORED}, bool(classes.keys) and not isinstance(classes.keys[0], int)
    keys = [key[0] for key in classes.keys if len(set(key)) == 1] if has_colors else classes.keys
    if has_colors and len(keys) == len(classes.keys) and values <= set(keys):  # all are grey
        return _as_rgb(labels, _by_key(labels, classes._replace(keys=keys), zero))
    if has_colors and classes.values and values <= set(classes.values):
        keys = classes.values
    elif has_colors:
        keys = None
    found = _by_key(labels, classes._replace(keys=keys), zero) if keys else _by_number(labels, classes, zero)
    if has_colors:
        palette = dict(zip(classes.names, classes.keys))
        found = found._replace(palette=[palette[name] for name in found.names])
    return _as_rgb(labels, found)


def _is_binary(labels: Labels) -> bool:
    """Whether the labels hold 0 and 255 only, or in a JPEG mostly something near them."""
    total = sum(labels.counts.values())
    near = sum(count for value, count in labels.counts.items() if min(value, abs(255 - value)) < 32)
    return set(labels.counts) == {0, IGNORED} or bool(labels.lossy) and near > 0.9 * total


def _as_colors(labels: Labels, classes: Classes) -> Classes:
    """Greys for the classes of JPEG labels, of which the nearest is taken."""
    if classes.keys:
        return classes._replace(keys=[(key, ) * 3 if isinstance(key, int) else key for key in classes.keys])
    if len(classes.names) == 2 and _is_binary(labels):
        return classes._replace(keys=[(0, 0, 0), (255, 255, 255)])
    raise InputError(f'{labels.lossy} is a JPEG, which does not keep values, and {classes.source} gives none: give a '
                     'file by --classes with a class a line and its value, such as "100: road"')


def _as_rgb(labels: Labels, found: Assignment) -> Assignment:
    if labels.is_rgb and found.label_map is None:  # which MMSegmentation's own loading would not read
        return found._replace(label_map={i: i for i in range(len(found.names))})
    return found


def _by_number(labels: Labels, classes: Classes, zero: Optional[str]) -> Assignment:
    """Values count the classes, from 0 or from 1."""
    names, values = list(classes.names), sorted(set(labels.counts) - {IGNORED})
    if names[0] == '__ignore__':  # labelme's name of -1, which is 255
        names.pop(0)
    if not set(values) - {0} and IGNORED in labels.counts and len(names) == 2:
        found = _by_key(labels, classes._replace(names=names, keys=[0, IGNORED]), zero)
        note = f'the labels hold 0 and 255 only: 0 is {names[0]}, 255 is {names[1]}'
        return found._replace(notes=[note, *found.notes])
    if not values:
        raise InputError('the labels hold 255 only, which is ignored: nothing is left to train on')
    from_one = zero == 'ignore' or zero is None and values[-1] == len(names)
    beyond = [value for value in values if value > len(names) - (not from_one)]
    if beyond:
        raise InputError(f'{classes.source} names {len(names)} classes, and the labels hold {_listed(labels, beyond)}: '
                         'name them all, or give each class its value in a file, such as "7: road"')
    if any(map(is_void, names)):
        keys = [i + from_one for i in range(len(names))]
        return _by_key(labels, classes._replace(names=names, keys=keys), 'ignore' if from_one else None)
    if not from_one:
        note = f'0 is the class {names[0]} (--zero ignore: it is none, and classes count from 1)'
        return Assignment(names, None, None, [note] if 0 in values else [])
    label_map = {0: IGNORED, **{i + 1: i for i in range(len(names))}}
    note = f'0 is no class and ignored, and classes count from 1: {names[0]} is 1 (--zero class: 0 is one)'
    return Assignment(names, label_map, None, [note])


def _by_key(labels: Labels, classes: Classes, zero: Optional[str]) -> Assignment:
    """A table says the value of each class."""
    ignored = [key for name, key in zip(classes.names, classes.keys) if is_void(name)]
    names = [name for name in classes.names if not is_void(name)]
    keys = [key for key in classes.keys if key not in ignored]
    left = _left(labels, {*keys, *ignored, IGNORED}, 0, zero, classes)
    label_map = {**dict.fromkeys([*ignored, *left], IGNORED), **{key: i for i, key in enumerate(keys)}}
    is_plain = label_map == {i: i for i in range(len(names))}
    return Assignment(names, None if is_plain else label_map, None,
                      [f'ignored: {", ".join(map(str, [*ignored, *left]))}'] if ignored or left else [])


def _by_color(labels: Labels, classes: Classes, zero: Optional[str]) -> Assignment:
    if not classes.keys or isinstance(classes.keys[0], int):
        raise InputError(f'the labels are colours, and {classes.source} gives none: give a file by --classes with a '
                         'class a line and its colour, such as "road 128 64 128". They hold '
                         f'{_listed(labels, labels.counts)}')
    notes, ignored = [], [key for name, key in zip(classes.names, classes.keys) if is_void(name)]
    names = [name for name in classes.names if not is_void(name)]
    colors = [key for key in classes.keys if key not in ignored]
    if labels.lossy:
        notes.append(f'{labels.lossy} and others are JPEG, which does not keep colours: the nearest one is taken, and '
                     'edges are wrong; take the originals if you have them')
    else:
        ignored += _left(labels, {*colors, *ignored}, (0, 0, 0), zero, classes)
    if ignored:
        notes.append(f'ignored: {", ".join(map(str, ignored))}')
    return Assignment(names, None, [*colors, *ignored], notes)


def _left(labels: Labels, known: set, black: Value, zero: Optional[str], classes: Classes) -> List[Value]:
    """What no class has: nothing, or the value 0 if it is to be ignored."""
    left = set(labels.counts) - known
    if left == {black} and zero == 'ignore':
        return [black]
    if left:
        fix = ' (--zero ignore, if it is no class)' if left == {black} else ''
        raise InputError(f'{classes.source} has no class for {_listed(labels, left)}: add them{fix}; what is to be '
                         'ignored is named void there')
    return []


def _listed(labels: Labels, values) -> str:
    """Values or colours, the most frequent first, with their pixels and a file."""
    ordered = sorted(values, key=lambda value: -labels.counts[value])
    total = sum(labels.counts.values())
    shown = [f'{value} ({100 * labels.counts[value] / total:.2g} % of the pixels, as in {labels.files[value]})'
             for value in ordered[:5]]
    return ', '.join(shown) + (f' and {len(ordered) - 5} more' if len(ordered) > 5 else '')
