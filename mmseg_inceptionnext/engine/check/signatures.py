"""What a class of a config takes: the names of its settings, and those that can only be numbers."""
import ast
import difflib
import inspect
import textwrap
import typing
from functools import lru_cache
from typing import Any, Collection, Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import torch
from mmengine.registry import Registry

from mmseg_inceptionnext.errors import ConfigError

STOCK = ('mmengine.', 'mmcv.', 'mmseg.', 'mmseg_inceptionnext.', 'torch.')  # modules whose classes are known
NUMBERS = (int, float, bool, type(None), torch.Tensor, Ellipsis)
READERS = ('get', 'pop', 'setdefault')  # methods by which a constructor takes one of its **kwargs for itself


class Accepted(NamedTuple):
    """The arguments of a class by name, and whether these are all: some hand others on to who knows what."""
    names: Dict[str, inspect.Parameter]
    are_all: bool


@lru_cache(maxsize=1024)
def accepted(kind: Any) -> Accepted:
    """The named arguments of a class, with those that it hands on to its bases, or of a function."""
    names: Dict[str, inspect.Parameter] = {}
    is_class = inspect.isclass(kind)
    for owner in inspect.getmro(kind) if is_class else [kind]:
        function = vars(owner).get('__init__') if is_class else kind
        if function is None:
            continue
        try:
            parameters = list(inspect.signature(function).parameters.values())[1 if is_class else 0:]
            rest = [one.name for one in parameters if one.kind is one.VAR_KEYWORD]
            goes_on, taken = _fate(function, rest[0]) if rest else (False, ())
        except (TypeError, ValueError, OSError, SyntaxError):  # a constructor without Python source
            return Accepted(names, False)
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                names.setdefault(one.name, one)
        for name in taken:
            names.setdefault(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY))
        if not goes_on:
            return Accepted(names, goes_on is False)
    return Accepted(names, False)


def is_stock(kind: Any) -> bool:
    """Whether a class or function is one of the libraries or of this package."""
    return getattr(kind, '__module__', '').startswith(STOCK)


def _fate(function: Any, rest: str) -> Tuple[Optional[bool], Tuple[str, ...]]:
    """Whether ``**rest`` goes on to the constructor of a base, None if elsewhere; and what is read of it by name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    uses = sum(isinstance(node, ast.Name) and node.id == rest for node in ast.walk(tree))
    goes_on, taken = False, []
    for node in ast.walk(tree):
        found = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == '__init__':
                handed = sum(key.arg is None and _is(key.value, rest) for key in node.keywords)
                goes_on, uses = goes_on or handed > 0, uses - handed
            elif _is(node.func.value, rest) and node.func.attr in READERS and node.args:
                found = node.args[0]
        elif isinstance(node, ast.Subscript) and _is(node.value, rest):
            found = node.slice
        elif isinstance(node, ast.Compare) and any(_is(one, rest) for one in node.comparators):
            found = node.left
        if isinstance(found, ast.Constant):
            taken.append(found.value)
            uses -= 1
    return (None if uses else goes_on), tuple(taken)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def takes_numbers_only(parameter: inspect.Parameter) -> bool:
    """Whether the annotation of an argument leaves nothing but numbers, and lists of them."""
    def numeric(annotation: Any) -> bool:
        inner = typing.get_args(annotation)
        return all(map(numeric, inner)) if inner else annotation in NUMBERS
    annotation = parameter.annotation
    return annotation is not parameter.empty and not isinstance(annotation, str) and numeric(annotation)


def names_of(registry: Registry) -> Iterator[str]:
    """What can be named in a registry, and in those that it falls back to."""
    while registry is not None:
        registry.import_from_location()
        yield from registry.module_dict
        registry = registry.parent


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`` (did you mean ...?)``, or nothing if no name is near; ``cutoff`` as in ``difflib``."""
    near = difflib.get_close_matches(str(name), list(dict.fromkeys(map(str, known))), 1, cutoff)
    return f' (did you mean {near[0]}?)' if near else ''


def refuse_unknown(name: str, given: Any, known: Collection[str], all_are_known: bool = True) -> None:
    """Raises a ConfigError for a setting that is not known; where others may be, only if it looks like a known one."""
    if not isinstance(given, dict):
        raise ConfigError(f'{name} is {given!r}: give its settings, dict(...), with some of {", ".join(sorted(known))}')
    for key in given:
        cutoff = 0.6 if all_are_known else 0.87
        hint = nearest(key, known, cutoff) or nearest(str(key).lower(), known, cutoff)
        if key not in known and (all_are_known or hint):
            raise ConfigError(f'{name}.{key} is no setting{hint}; {name} takes {", ".join(sorted(known))}')
