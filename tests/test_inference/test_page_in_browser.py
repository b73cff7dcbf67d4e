"""tools/app.py in headless Chromium: upload, legend, opacity, class under the pointer, download, a broken file."""
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.inference import infer

from broken_files import half
from utils import ROOT, hear_interrupts

pytest.importorskip('gradio', reason='the page needs Gradio')
sync_api = pytest.importorskip('playwright.sync_api', reason='needs Playwright, which drives a browser')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
pytestmark = [pytest.mark.browser, pytest.mark.slow,
              pytest.mark.skipif(CHROMIUM is None, reason='needs a browser: Chromium or Chrome on the PATH')]


@pytest.fixture
def url(checkpoint):
    """The page's URL; afterwards, it ends by Ctrl-C without a complaint."""
    process = subprocess.Popen([sys.executable, 'tools/app.py', checkpoint, '--port', '0', '--device', 'cpu'], cwd=ROOT,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               preexec_fn=hear_interrupts)
    try:
        line = process.stdout.readline()
        yield re.fullmatch(r'the page is at (http://127\.0\.0\.1:\d+/); Ctrl-C ends it\n', line)[1]
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=20)[0], process.returncode) == ('ended\n', 0)
    finally:
        process.kill()


@pytest.fixture
def tab(url):
    """A tab that shows the page and has ``requests``, the URLs that it asked for, but for those that are content."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        tab = browser.new_page(viewport=dict(width=1280, height=800))
        tab.requests = []
        tab.on('request', lambda request: request.url.startswith('data:') or tab.requests.append(request.url))
        tab.goto(url)
        tab.wait_for_selector('#view .empty')
        yield tab
        assert all(request.startswith(url) for request in tab.requests)  # nothing from elsewhere
        browser.close()


def opacity_of(tab):
    return float(tab.evaluate("getComputedStyle(document.querySelector('#view .classes')).opacity"))


def point_at(tab, x, y, width, height):
    """Moves the pointer to the middle of a pixel of the image and returns what is said of it."""
    box = tab.locator('#view .stack').bounding_box()
    tab.mouse.move(box['x'] + (x + 0.5) / width * box['width'], box['y'] + (y + 0.5) / height * box['height'])
    tab.wait_for_function("document.querySelector('#view .pointer').textContent")
    return tab.locator('#view .pointer').text_content()


def test_a_visit(tab, checkpoint, toy_root, tmp_path):
    path = str(toy_root / 'images/validation/toy_validation_00000.jpg')
    segmenter = Segmenter(checkpoint, device='cpu', fuse_model=True)
    result = segmenter(path)
    height, width = result.mask.shape
    assert len(result.share()) > 3

    tab.set_input_files('input[type=file]', path)
    tab.wait_for_selector('#view .stack')
    check_the_legend(tab, result)
    shown = tab.evaluate("""async () => { const picture = document.querySelector('#view .classes');
        await picture.decode();
        const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext('2d');
        canvas.drawImage(picture, 0, 0);
        return [...canvas.getImageData(0, 0, picture.naturalWidth, picture.naturalHeight).data]; }""")
    colors = np.array(result.palette)[result.mask]
    np.testing.assert_array_equal(np.array(shown).reshape(height, width, 4)[..., :3], colors)

    for x, y in [(0, 0), (width - 1, 0), (width // 3, height // 2), (17, height - 1)]:
        assert point_at(tab, x, y, width, height) == f'{result.classes[result.mask[y, x]]} ({x}, {y})'
    tab.mouse.move(1, 1)
    assert not tab.locator('#view .pointer').text_content()

    check_the_slider(tab)
    with tab.expect_download() as download:
        tab.click('#view .download')
    infer(segmenter, [path], str(tmp_path / 'infer'))
    assert download.value.suggested_filename == 'toy_validation_00000.png'
    assert Path(download.value.path()).read_bytes() == (tmp_path / 'infer/toy_validation_00000.png').read_bytes()
    tab.screenshot(path=str(ROOT / 'work_dirs/page.png'))  # to be looked at; what is in tmp_path goes

    broken = tmp_path / 'cut.jpg'
    broken.write_bytes(half(Path(path).read_bytes()))
    tab.set_input_files('input[type=file]', str(broken))
    sentence = tab.locator('#view .failed').text_content()
    assert sentence.startswith('cut.jpg: cannot be read as an image') and 'truncated' in sentence
    tab.click('#examples button >> nth=1')  # and it goes on
    tab.wait_for_selector('#view .stack')
    assert 'scene_2.jpg' in tab.locator('#view .file').text_content()


def check_the_legend(tab, result):
    rows = tab.locator('#view .legend li').all()
    shown = {row.locator('.name').text_content(): row.locator('.share').text_content() for row in rows}
    assert shown == {name: f'{100 * share:.1f} %' if share >= 0.001 else '< 0.1 %'
                     for name, share in result.share().items()}
    for row in rows:
        color = result.palette[result.classes.index(row.locator('.name').text_content())]
        style = row.locator('.swatch').evaluate('element => getComputedStyle(element).backgroundColor')
        assert style == 'rgb({}, {}, {})'.format(*color)


def check_the_slider(tab):
    """It changes what is seen, and asks the server for nothing."""
    assert opacity_of(tab) == 0.5
    before = len(tab.requests)
    tab.locator('#opacity input[type=range]').fill('0.8')
    tab.wait_for_function("getComputedStyle(document.querySelector('#view .classes')).opacity == 0.8")
    tab.wait_for_timeout(300)
    assert tab.requests[before:] == []
