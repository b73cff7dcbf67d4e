"""Shows a Segmenter in the browser: drop an image, see its classes. The page is made by Gradio, an optional library."""
import glob
import html
import os
import os.path as osp
import shutil
import socket
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps

from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES
from mmseg_inceptionnext.datasets.toy_ade20k import draw_scene
from mmseg_inceptionnext.errors import InputError, UserError

from .segmenter import Segmenter
from .viewer import draw_examples, draw_message, draw_result

HERE = Path(__file__).parent
MAX_MEGABYTES = 20
MAX_MEGAPIXELS = 25
MAX_SIDE = 16384  # pixels
MAX_UPLOADS = 20 * MAX_MEGABYTES  # megabytes, of all users together
MAX_WAITING = 100  # images
KEPT = 600  # seconds that an upload is kept: so long may an image wait for those before it
FOLDER = 'mmseg_page_'  # how the names of the pages' folders begin
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF')  # what Pillow calls IMAGE_SUFFIXES
NUM_EXAMPLES = 9
THUMBNAIL = 240  # pixels, the longer side
EMPTY = 'Drop an image, or take an example.'
# Both run in the browser; the second asks the server for nothing.
CHOOSE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('click', { index: Number(button.dataset.index) });
});"""
SET_OPACITY = "(opacity) => document.documentElement.style.setProperty('--opacity', opacity)"


def find_port(host: str, port: int) -> int:
    """The port, or one that is free for 0; an InputError if it is in use, or the host is none of this machine's."""
    if not 0 <= port <= 65535:
        raise InputError(f'--port {port}: allowed are 1 to 65535, and 0 for any that is free')
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise InputError(f'--host {host} --port {port}: no page can be served there: {error.strerror or error}; give '
                         'another --port, 0 for any that is free, or another --host, 127.0.0.1 for this machine alone'
                         ) from error


@contextmanager
def serve(segmenter: Segmenter, title: str, host: str, port: int, examples: Optional[str] = None) -> Iterator[str]:
    """Serves the page as long as the context is open.

    Args:
        segmenter: the model; one image at a time is given to it.
        title: of the page.
        host: address to listen at; ``0.0.0.0`` for all of this machine's.
        port: see :func:`find_port`.
        examples: folder with images to choose from. Default: drawn scenes.

    Yields:
        The page's URL.

    Raises:
        InputError: if Gradio is missing, ``examples`` holds no image, or the page cannot be served there.
    """
    gr = load_gradio()
    from starlette.middleware import Middleware

    from .page_guard import Guard
    port = find_port(host, port)
    with _own_folder() as folder, _uploads_to(osp.join(folder, 'uploads')) as uploads:
        page = build_page(segmenter, title, list_examples(examples) if examples else draw_scenes(folder))
        theme = gr.themes.Default(primary_hue='blue', font=('system-ui', 'sans-serif'), font_mono='monospace')
        guard = Middleware(Guard, host=host, folder=uploads, file_size=(MAX_MEGABYTES + 1) << 20,
                           total=MAX_UPLOADS << 20, seconds=2 * KEPT)
        try:
            # Nothing is loaded from, or told to, another server.
            yield page.launch(
                server_name=host, server_port=port, max_file_size=f'{MAX_MEGABYTES}mb', share=False, ssr_mode=False,
                prevent_thread_lock=True, quiet=True, run_history=False, enable_monitoring=False, footer_links=[],
                css=HERE.joinpath('page.css').read_text(), theme=theme, app_kwargs=dict(middleware=[guard]))[1]
        finally:
            page.close(verbose=False)


@contextmanager
def _own_folder() -> Iterator[str]:
    """A temporary folder, locked as long as the context is open; removes those that killed pages have left over."""
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as folder:
        lock, user = osp.join(folder, 'lock'), os.lstat(folder).st_uid
        with FileLock(lock + '.new'):
            os.rename(lock + '.new', lock)  # once it has its name, it is held
            for other in glob.glob(osp.join(glob.escape(osp.dirname(folder)), FOLDER + '*')):
                _remove_if_left_over(other, user)
            yield folder


def _remove_if_left_over(folder: str, user: int) -> None:
    """Removes a folder that belongs to the user and has a lock that nobody holds; follows no link."""
    with suppress(OSError):  # it is gone by now, or the lock is held: filelock's Timeout is an OSError
        if stat.S_ISDIR(os.lstat(folder).st_mode) and os.lstat(folder).st_uid == user:
            os.lstat(osp.join(folder, 'lock'))  # a page that starts has none yet
            with FileLock(osp.join(folder, 'lock'), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _uploads_to(folder: str) -> Iterator[str]:
    """Gives Gradio another folder for uploads; its own is shared by all users of a machine, and stays."""
    before = os.environ.get('GRADIO_TEMP_DIR')
    os.environ['GRADIO_TEMP_DIR'] = folder
    try:
        yield folder
    finally:
        del os.environ['GRADIO_TEMP_DIR']
        if before is not None:
            os.environ['GRADIO_TEMP_DIR'] = before


def load_gradio():
    """The library, or an InputError that says how to install it."""
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the page is made by Gradio, which cannot be imported ({error}): pip install 'gradio>=6'; it "
                         'takes Python 3.10 or newer') from error
    return gradio


def build_page(segmenter: Segmenter, title: str, examples: List[str]):
    """The page, as Gradio's Blocks, with example images of these files."""
    gr = load_gradio()

    def segment(path: Optional[str]) -> str:
        return segment_file(segmenter, path) if path else draw_message(EMPTY, 'empty')

    def segment_example(event: gr.EventData) -> str:
        return segment_file(segmenter, examples[event.index])

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, KEPT), fill_width=True) as page:
        gr.HTML(f'<h1>Semantic segmentation</h1><p>{html.escape(title)}, {len(segmenter.classes)} classes</p>',
                elem_id='title')
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label=f'Image, up to {MAX_MEGABYTES} MB, {MAX_MEGAPIXELS} megapixels',
                                 file_types=list(IMAGE_SUFFIXES), height=160)
                upload.async_move_resource_to_block_cache = _no_url(upload.async_move_resource_to_block_cache)
                choice = gr.HTML(draw_examples(map(read_thumbnail, examples)), js_on_load=CHOOSE, elem_id='examples')
            with gr.Column(scale=4, min_width=320):
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label='Opacity of the classes', elem_id='opacity', buttons=[])
                view = gr.HTML(draw_message(EMPTY, 'empty'), elem_id='view',
                               js_on_load=HERE.joinpath('viewer.js').read_text())
        one_at_a_time = dict(concurrency_limit=1, concurrency_id='model', show_progress_on=view)
        upload.upload(segment, upload, view, api_name='segment', **one_at_a_time).then(
            lambda: None, None, upload, api_visibility='private')  # an empty field takes the next image
        choice.click(segment_example, None, view, api_visibility='private', **one_at_a_time)
        opacity.input(None, opacity, None, js=SET_OPACITY)
    return page.queue(api_open=False, max_size=MAX_WAITING)  # nobody can skip the queue


def _no_url(take):
    """Gradio's way to take a file for a component, without its downloads: a request may name a URL as the file."""
    async def take_file(path: Optional[str]) -> Optional[str]:
        if path and '://' in path:
            raise InputError(f'{path}: the page fetches nothing from other servers; upload a file')
        return await take(path)
    return take_file


def segment_file(segmenter: Segmenter, path: str) -> str:
    """The HTML of a file's result, or of the sentence that says why there is none."""
    name = osp.basename(path)
    try:
        check_size(path)
        return draw_result(segmenter(path), name)
    except (UserError, OSError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).replace(path, name)
        return draw_message(reason if reason.startswith(name) else f'{name}: {reason}', 'failed')


def check_size(path: str) -> None:
    """Raises an InputError if an image is too large, or none, before a decoder makes room for what its head promises.
    """
    if osp.getsize(path) > MAX_MEGABYTES << 20:
        raise InputError(f'{path}: has {osp.getsize(path) / (1 << 20):.1f} MB; at most {MAX_MEGABYTES} are taken')
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise InputError(f'{path}: has too many pixels; at most {MAX_MEGAPIXELS} million are taken') from error
    except OSError as error:  # Pillow's UnidentifiedImageError is one
        raise InputError(f'{path}: is no image that can be read here; {", ".join(FORMATS)} are taken') from error
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise InputError(f'{path}: has {width} x {height} pixels; at most {MAX_MEGAPIXELS} million are taken')
    if max(width, height) > MAX_SIDE:
        raise InputError(f'{path}: has {width} x {height} pixels; at most {MAX_SIDE} a side are taken')


def list_examples(folder: str) -> List[str]:
    """The first images of a folder; an InputError if there is none."""
    paths = [path for path in sorted(glob.glob(osp.join(glob.escape(folder), '*')))
             if path.lower().endswith(IMAGE_SUFFIXES)]
    if not paths:
        raise InputError(f'--examples {folder}: holds no image; files that end in {" ".join(IMAGE_SUFFIXES)} are taken')
    return paths[:NUM_EXAMPLES]


def draw_scenes(folder: str) -> List[str]:
    """Draws street scenes into a folder: the first of the toy dataset's validation images."""
    paths = [osp.join(folder, f'scene_{i + 1}.jpg') for i in range(NUM_EXAMPLES)]
    for i, path in enumerate(paths):
        image, _ = draw_scene(np.random.default_rng((0, 1, i)))
        Image.fromarray(image).save(path, quality=92)
    return paths


def read_thumbnail(path: str) -> Image.Image:
    """A small picture of an image; a grey one of what cannot be read."""
    try:
        check_size(path)
        with Image.open(path) as image:
            small = ImageOps.exif_transpose(image).convert('RGB')
    except (ValueError, OSError, SyntaxError):  # SyntaxError: Pillow, of a damaged PNG
        small = Image.new('RGB', (THUMBNAIL, THUMBNAIL), 'grey')
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return small
