"""Writes a result as HTML: the image under its classes, a legend, and the index map to download.

``page.css`` and ``viewer.js`` belong to it: the one lays it out, the other paints the classes and names that under the
pointer.
"""
import base64
import html
import io
import os.path as osp
import zlib
from typing import Sequence

from PIL import Image

from .outputs import encode_index
from .overlay import percent
from .result import SegmentationResult

SHOWN = 2048  # pixels, the longer side of the photo on the page at most; the classes are not reduced


def draw_result(result: SegmentationResult, name: str) -> str:
    """The HTML of a result.

    Args:
        result: whose class names may hold anything; they are shown as text.
        name: of the image file.
    """
    height, width = result.mask.shape
    stem = osp.splitext(name)[0]
    ids = zlib.compress(result.mask.astype('<u2').tobytes())
    return f'''
<div class="viewer"><div class="parts">
  <div style="max-width: calc(72vh * {width / height:.4f})">
    <div class="stack" data-width="{width}" data-height="{height}" style="aspect-ratio: {width} / {height}">
      <img src="{_data_url('image/jpeg', _photo(result))}" alt="{html.escape(name)}">
      <canvas data-ids="{_data_url('application/octet-stream', ids)}"></canvas>
    </div>
    <p class="caption"><span class="pointer"></span>
      <span class="file">{html.escape(name)}, {width} x {height}</span></p>
  </div>
  <div>
    <ul class="legend">{_legend(result)}</ul>
    <a class="download" download="{html.escape(stem)}.png" href="{_data_url('image/png', encode_index(result.mask))}"
       title="The class id of each pixel, from 0">Download class ids (PNG)</a>
  </div>
</div></div>'''


def draw_message(text: str, kind: str) -> str:
    """The HTML of a sentence in place of a result; ``kind`` is ``empty`` or ``failed``."""
    return f'<div class="viewer"><div class="{kind}" role="status">{html.escape(text)}</div></div>'


def draw_examples(thumbnails: Sequence[Image.Image]) -> str:
    """The HTML of small pictures to choose from: buttons that know their index."""
    buttons = []
    for i, thumbnail in enumerate(thumbnails):
        url = _data_url('image/jpeg', _jpeg(thumbnail))
        buttons.append(f'<button type="button" data-index="{i}"><img src="{url}" alt="Example {i + 1}"></button>')
    return f'<p>Examples</p><div class="grid">{"".join(buttons)}</div>'


def _legend(result: SegmentationResult) -> str:
    """A row for each class present, largest first."""
    ids = {name: i for i, name in enumerate(result.classes)}
    rows = []
    for name, part in result.share().items():
        red, green, blue = (int(value) for value in result.palette[ids[name]])
        packed = red | green << 8 | blue << 16 | 255 << 24  # as a canvas has it
        rows.append(f'<li data-id="{ids[name]}" data-color="{packed}">'
                    f'<span class="swatch" style="background: rgb({red} {green} {blue})"></span>'
                    f'<span class="name">{html.escape(name)}</span><span class="share">{percent(part)}</span></li>')
    return ''.join(rows)


def _photo(result: SegmentationResult) -> bytes:
    """The image as it was segmented, which a browser may not be able to show itself, such as a TIFF."""
    photo = Image.fromarray(result.image)
    photo.thumbnail((SHOWN, SHOWN))
    return _jpeg(photo)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=90)
    return file.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    """A URL that is its own content."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
