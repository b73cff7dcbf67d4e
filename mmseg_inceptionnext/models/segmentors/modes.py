"""What ``model.test_cfg`` of a segmentor may be."""
import difflib
from inspect import isclass
from typing import Any, Optional

from mmseg.models.segmentors import EncoderDecoder

MODES = ('whole', 'slide')


def is_number(value: Any) -> bool:
    """Whether a setting is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether a setting is a whole number, also written as 2.0, of at least so much."""
    return is_number(value) and float(value).is_integer() and value >= least


def is_pair(value: Any) -> bool:
    """Whether a setting is two whole numbers from 1."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_whole, value))


def mode_problem(kind: Any, test_cfg: Optional[dict]) -> Optional[str]:
    """Says how the images would be predicted otherwise than ``test_cfg`` says, or not at all; None if they are as said.

    Args:
        kind: the segmentor's class. One with an inference of its own may have other modes.
        test_cfg: ``mode``, and for sliding windows ``crop_size`` and ``stride``, height and width in pixels.
    """
    settings = test_cfg or {}
    if not (isclass(kind) and getattr(kind, 'inference', None) is EncoderDecoder.inference):
        return None
    mode = settings.get('mode', 'whole')
    if mode not in MODES:
        near = ''.join(f' (did you mean {name}?)' for name in difflib.get_close_matches(str(mode), MODES, 1))
        return f"model.test_cfg.mode is {mode!r}{near}: allowed are 'whole' and 'slide'"
    if mode == 'whole':
        return None
    for key, example in (('crop_size', (512, 512)), ('stride', (341, 341))):
        if not is_pair(settings.get(key)):
            return (f"model.test_cfg.{key} is {settings.get(key)!r}, and mode is 'slide': allowed are two whole "
                    f'numbers from 1, height and width in pixels, such as {example}')
    if any(step > side for step, side in zip(settings['stride'], settings['crop_size'])):
        return (f"model.test_cfg.stride is {settings['stride']!r}, more than crop_size {settings['crop_size']!r}: the "
                'windows would leave gaps; allowed is at most the crop_size')
    if not is_whole(settings.get('batch_size', 1)):
        return f"model.test_cfg.batch_size is {settings['batch_size']!r}: allowed is a whole number from 1"
    return None
