"""Writes a result as HTML: the image under its classes, a legend, and the index map to download.

``page.css`` lays it out; ``viewer.js`` names the class under the pointer.
"""
import base64
import html
import io
import os.path as osp
import zlib
from typing import Iterable

import numpy as np
from PIL import Image

from .outputs import SegmentationResult, encode_png
from .overlay import percent

LONGEST = 2048  # pixels, the longer side of the photo on the page at most; the classes are not reduced


def draw_result(result: SegmentationResult, name: str) -> str:
    """The HTML of the result of a file; names of classes and files may hold anything, and are displayed as text."""
    height, width = result.mask.shape
    photo = Image.fromarray(result.image)  # as it was segmented: a browser may not know its file, such as a TIFF
    photo.thumbnail((LONGEST, LONGEST))
    colors = encode_png(np.asarray(result.color()))
    ids = zlib.compress(result.mask.astype('<u2').tobytes())
    return f'''
<div class="viewer"><div class="parts">
  <div style="max-width: calc(72vh * {width / height:.4f})">
    <div class="stack" style="aspect-ratio: {width} / {height}" data-width="{width}" data-height="{height}"
         data-ids="{_data_url('application/octet-stream', ids)}">
      <img src="{_jpeg_url(photo)}" alt="{html.escape(name)}">
      <img class="classes" src="{_data_url('image/png', colors)}" alt="">
    </div>
    <p class="caption"><span class="pointer"></span>
      <span class="file">{html.escape(name)}, {width} x {height}</span></p>
  </div>
  <div>
    <ul class="legend">{_legend(result)}</ul>
    <a class="download" download="{html.escape(osp.splitext(name)[0])}.png"
       href="{_data_url('image/png', encode_png(result.mask))}"
       title="The class id of each pixel, from 0">Download class ids (PNG)</a>
  </div>
</div></div>'''


def draw_message(text: str, kind: str) -> str:
    """The HTML of a sentence in place of a result; ``kind`` is ``empty`` or ``failed``."""
    return f'<div class="viewer"><div class="{kind}" role="status">{html.escape(text)}</div></div>'


def draw_examples(thumbnails: Iterable[Image.Image]) -> str:
    """The HTML of small pictures to choose from: buttons that know their index."""
    buttons = [f'<button type="button" data-index="{i}"><img src="{_jpeg_url(image)}" alt="Example {i + 1}"></button>'
               for i, image in enumerate(thumbnails)]
    return f'<p>Examples</p><div class="grid">{"".join(buttons)}</div>'


def _legend(result: SegmentationResult) -> str:
    """A row for each class present, largest first."""
    ids, rows = {name: i for i, name in enumerate(result.classes)}, []
    for name, part in result.share().items():
        color = ' '.join(map(str, map(int, result.palette[ids[name]])))
        rows.append(f'<li data-id="{ids[name]}"><span class="swatch" style="background: rgb({color})"></span>'
                    f'<span class="name">{html.escape(name)}</span><span class="share">{percent(part)}</span></li>')
    return ''.join(rows)


def _jpeg_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=90)
    return _data_url('image/jpeg', file.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    """A URL that is its own content."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
