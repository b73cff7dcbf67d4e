"""What the programs in ``tools/`` share: the options of a config, and how they end."""
import copy
import sys
from argparse import ArgumentError, ArgumentParser
from typing import Any, Callable, List

from mmengine.config import DictAction

from .errors import UserError

PATHS = ('data_root', 'load_from', 'checkpoint', 'work_dir', 'out_dir', 'save_dir', 'ann_file', 'img_path',
         'seg_map_path')  # settings that are taken as they are


class ConfigOptions(DictAction):
    """MMEngine's ``KEY=VALUE``, which leaves spaces alone, and commas in quoted values and in paths."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = copy.copy(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, sign, value = text.partition('=')
            if not sign:
                raise ArgumentError(self, f'{text!r} has no "=": allowed is KEY=VALUE; put a value with spaces into '
                                    'quotes, such as "load_from=my runs/iter_160000.pth"')
            options[key.strip()] = self._value(key.strip(), value)
        setattr(namespace, self.dest, options)

    def _value(self, key: str, text: str) -> Any:
        if key.rpartition('.')[2] in PATHS and not _is_quoted(text):
            return None if text == 'None' else text
        try:
            return _parse(text)
        except ValueError as error:
            raise ArgumentError(self, f'{key}={text}: {error}; close each bracket, or put the value into quotes '
                                f'within quotes, "{key}=\'{text}\'", if it is a text') from error


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in '\'"'


def _parse(text: str) -> Any:
    """A text in quotes, a list or a tuple of values, or what MMEngine makes of one; inner spaces are kept."""
    items = _split(text)
    if len(items) > 1:
        return [_parse(item.strip()) for item in items if item.strip()]
    if _is_quoted(text):
        return text[1:-1]
    if text[:1] + text[-1:] in ('()', '[]'):
        items = [_parse(item.strip()) for item in _split(text[1:-1]) if item.strip()]
        return tuple(items) if text[0] == '(' else items
    return DictAction._parse_int_float_bool(text)


def _split(text: str) -> List[str]:
    """The parts between commas that stand neither in brackets nor in quotes; ValueError if a bracket is not closed."""
    items, depth, quote = [''], 0, ''
    for sign in text:
        if quote or sign in '\'"' and not items[-1].strip(' [('):
            quote = sign if not quote else '' if sign == quote else quote
        elif sign in '[](),':
            depth += (sign in '[(') - (sign in '])')
            if sign == ',' and not depth:
                items.append('')
                continue
        items[-1] += sign
    if depth:
        raise ValueError('a bracket is not closed')
    return items


def add_config_options(parser: ArgumentParser, *examples: str) -> None:
    """Adds ``--cfg-options`` and ``--data-root``, which both end in ``args.cfg_options``."""
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
                        help=f'override settings of the config, such as {" or ".join(examples)}')
    parser.add_argument('--data-root', action=_DataRoot, dest='cfg_options', metavar='DIR',
                        help="the data set's folder, in place of the config's")


class _DataRoot(ConfigOptions):

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        super().__call__(parser, namespace, [f'data_root={values}'], option_string)


def run_tool(main: Callable[[], None]) -> None:
    """Runs a tool.

    An error that the user can do something about becomes its message and exit code 1, Ctrl-C exit code 130. Everything
    else is a fault of ours, and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f'{error.filename}: {error.strerror}')  # a file or folder that the user named
    except KeyboardInterrupt:
        sys.exit(130)
