"""Whether a file is read as OpenCV shows it, in colours and the right way up, or as it is stored."""
from typing import Any, Optional, Tuple

import cv2
import numpy as np
from PIL import Image

UNTURNED = (False, False, False)
# What an EXIF orientation asks for: rows and columns exchanged, then rows in reverse, then columns in reverse.
TURNS = {'2': (False, False, True), '3': (False, True, True), '4': (False, True, False), '5': (True, False, False),
         '6': (True, False, True), '7': (True, True, True), '8': (True, True, False)}


def colors_of(file: Any) -> Optional[np.ndarray]:
    """What the values of a file of one band stand for, values x 1 (grey) or 3 (RGB), or None: for themselves."""
    if file.count > 1 or file.dtypes[0] not in ('uint8', 'uint16'):
        return None
    if file.colorinterp[0].name == 'palette':
        table = np.zeros((1 + np.iinfo(file.dtypes[0]).max, 3), np.uint8)
        for value, color in file.colormap(1).items():
            table[value] = color[:3]
        return table[:, :1] if (table == table[:, :1]).all() else table
    bits = file.tags(1, ns='IMAGE_STRUCTURE').get('NBITS')
    if bits not in ('1', '2', '4') or file.dtypes[0] != 'uint8':
        return None
    return np.arange(256, dtype=np.uint8)[:, None] * np.uint8(255 // (2 ** int(bits) - 1))


def turn_of(file: Any) -> Tuple[bool, bool, bool]:
    """How OpenCV would turn it; a file that has a place on earth, or was converted, stays as it is."""
    if file.driver != 'JPEG' or file.crs or file.gcps[0] or not file.transform.is_identity:
        return UNTURNED
    return TURNS.get(file.tags().get('EXIF_Orientation'), UNTURNED)


def flag_of(path: str, as_stored: bool) -> int:
    """OpenCV's flag for all bands of a file, and for a JPEG that is turned, unless it is to be as stored."""
    with open(path, 'rb') as file:
        is_jpeg = file.read(2) == b'\xff\xd8'
    return cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if is_jpeg and not as_stored else cv2.IMREAD_UNCHANGED


def numbers_of(path: str) -> Optional[np.ndarray]:
    """The numbers, H x W, of a file with a colour table or 1 bit, which OpenCV cannot give; None of other files."""
    try:
        with Image.open(path) as image:
            return np.array(image).astype(np.uint8) if image.mode in ('P', '1') else None
    except (OSError, Image.DecompressionBombError):  # OpenCV has the last word
        return None
