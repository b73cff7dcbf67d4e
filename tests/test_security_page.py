"""docs/security.md lists what the code allows."""
import re

from mmseg_inceptionnext.checkpoints.embedded_config import (
    LEFT_OUT,
    MAX_NUMBER,
    MAX_PIXELS,
    MAX_VIEWS,
    PACKAGES,
    TRANSFORMS,
)
from mmseg_inceptionnext.checkpoints.safe_reading import ALLOWED
from mmseg_inceptionnext.checkpoints.sources import MAX_CLASSES, MAX_NAME

from utils import ROOT


def lists():
    """The two lists of the page."""
    names = ', '.join(f'`{name}`' for name in sorted(ALLOWED))
    steps = [f'- `{kind}`: {", ".join(f"`{key}`" for key in keys)}' for kind, keys in TRANSFORMS.items()]
    return names, '\n'.join(steps)


def test_the_page_lists_what_is_allowed():
    text = (ROOT / 'docs/security.md').read_text()
    for part in lists():
        assert part in text, f'put this into docs/security.md:\n{part}'
    flat = re.sub(r'\s+', ' ', text)
    for words in (f'in the packages {", ".join(PACKAGES)};', f'numbers up to {MAX_NUMBER},',
                  f'({", ".join(LEFT_OUT)})', f'at most {MAX_PIXELS} pixels, in at most {MAX_VIEWS} views:',
                  f'up to {MAX_CLASSES} names of up to {MAX_NAME} characters'):
        assert words in flat, words
