"""Reads small text files as people have them."""
import codecs
from pathlib import Path

from mmseg_inceptionnext.errors import InputError


def read_text(path: str) -> str:
    """A text in UTF-8 or, with a byte order mark as Windows writes it, UTF-16.

    Raises:
        InputError: if it is neither.
    """
    data = Path(path).read_bytes()
    try:
        return data.decode('utf-16' if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is no text in UTF-8: {error}; save it as UTF-8') from error
