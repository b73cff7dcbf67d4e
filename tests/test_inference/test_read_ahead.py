"""What is read and written ahead keeps its order and its name, also when Ctrl-C comes while it is waited for."""
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.inference import ResultWriter, infer
from mmseg_inceptionnext.inference.read_ahead import read_ahead

from utils import ROOT, hear_interrupts, run_tool

COUNT = 7


def write_images(toy_root, folder, count):
    """Images of one size that all differ."""
    folder.mkdir()
    image = np.array(Image.open(next((toy_root / 'images/training').iterdir())).convert('RGB'))
    for i in range(count):
        part = np.roll(image, 13 * i, axis=(0, 1))[:64, :96]
        Image.fromarray(part[::-1] if i % 2 else part).save(folder / f'{i:03d}.png')
    return sorted(map(str, folder.iterdir()))


def expected_masks(segmenter, paths):
    masks = {os.path.basename(path): segmenter(path).mask for path in paths}
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)  # a wrong name would be seen
    return masks


def check(summary, masks, out):
    """Each file is of the image whose name it has, and the summary counts just these."""
    files = sorted(out.iterdir()) if out.is_dir() else []
    counts = np.zeros(150)
    for path in files:
        mask = np.array(Image.open(path))
        np.testing.assert_array_equal(mask, masks[path.name], err_msg=path.name)
        counts += np.bincount(mask.ravel(), minlength=150)
    assert [f'{written}.png' for written in summary.written] == list(map(str, files))
    assert summary.images == len(files)
    assert sorted(summary.share.values()) == pytest.approx(sorted(counts[counts > 0] / max(counts.sum(), 1)))


def interrupt_result(monkeypatch, number):
    """Ctrl-C, while the result with this number, from 0, is waited for; results that are read on count, too."""
    calls, result = [], Future.result

    def interrupted(self, *args):
        calls.append(self)
        if len(calls) == number + 1:
            raise KeyboardInterrupt
        return result(self, *args)

    monkeypatch.setattr(Future, 'result', interrupted)


def test_order_and_distance():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    results = read_ahead(lambda i: (time.sleep(0.01 * (i % 3)), -i)[1], items(), depth=3)
    assert next(results) == (0, 0) and len(taken) == 4
    assert list(results) == [(i, -i) for i in range(1, 20)]
    failing = read_ahead(lambda i: 1 // i, [1, 0, 1], depth=3)
    assert next(failing) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(failing)


@pytest.mark.parametrize('number', range(6))
def test_an_interrupt_ends_it_and_what_is_under_way_is_finished(monkeypatch, number):
    interrupt_result(monkeypatch, number)
    done, results = [], []
    with pytest.raises(KeyboardInterrupt):
        for pair in read_ahead(lambda i: done.append(i) or -i, range(6), depth=2):
            results.append(pair)
    assert results == [(i, -i) for i in range(number)]
    assert sorted(done) == list(range(min(number + 3, 6)))


def test_no_result_gets_another_name_or_is_not_counted(segmenter, toy_root, tmp_path, monkeypatch):
    """Ctrl-C at each place where the main thread waits for a reader or a writer."""
    paths = write_images(toy_root, tmp_path / 'in', COUNT)
    masks = expected_masks(segmenter, paths)
    for number in range(2 * COUNT):
        out = tmp_path / f'out{number}'
        with monkeypatch.context() as patch:
            interrupt_result(patch, number)
            summary = infer(segmenter, [str(tmp_path / 'in')], str(out), ResultWriter(['index']))
        assert summary.interrupted
        check(summary, masks, out)
        summary = infer(segmenter, [str(tmp_path / 'in')], str(out), ResultWriter(['index']), skip_existing=True)
        assert summary.images + summary.skipped == COUNT == len(list(out.iterdir()))
    for path in out.iterdir():
        np.testing.assert_array_equal(np.array(Image.open(path)), masks[path.name])


@pytest.mark.parametrize('number', [0, 3])
def test_a_signal_during_a_slow_read(segmenter, toy_root, tmp_path, monkeypatch, number):
    paths = write_images(toy_root, tmp_path / 'in', COUNT)
    masks = expected_masks(segmenter, paths)
    read = segmenter._loading._of_file

    def slow(path):
        if path == paths[number]:
            time.sleep(0.5)  # the main thread comes to wait for it
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return read(path)

    monkeypatch.setattr(segmenter._loading, '_of_file', slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        summary = infer(segmenter, [str(tmp_path / 'in')], str(tmp_path / 'out'), ResultWriter(['index']))
    finally:
        signal.signal(signal.SIGINT, before)
    assert summary.interrupted and summary.images <= number
    check(summary, masks, tmp_path / 'out')


@pytest.mark.slow
def test_the_tool_leaves_whole_files_and_a_way_on(checkpoint, toy_root, tmp_path):
    paths = write_images(toy_root, tmp_path / 'in', 300)
    command = [sys.executable, 'tools/infer.py', str(checkpoint), str(tmp_path / 'in'), '--out-dir',
               str(tmp_path / 'out'), '--save', 'index', '--skip-existing']
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=hear_interrupts)
    while process.poll() is None and len(list(tmp_path.glob('out/*.png'))) < 5:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and 'stopped; --skip-existing goes on from here' in text
    assert 'Traceback' not in text, text
    done = list(tmp_path.glob('out/*.png'))
    assert f'{len(done)} images in' in text
    assert 5 <= len(done) < 300 and len(list((tmp_path / 'out').iterdir())) == len(done)
    fused = Segmenter(checkpoint, fuse_model=True)
    for path in done:
        np.testing.assert_array_equal(np.array(Image.open(path)), fused(tmp_path / 'in' / path.name).mask)
    text = run_tool(*command[1:]).stdout
    assert f'{len(done)} with results already there' in text and len(list(tmp_path.glob('out/*.png'))) == len(paths)


def test_ctrl_c_during_the_imports_is_quiet():
    """They take seconds; here they are interrupted at their start."""
    program = ('import runpy, sys\n'
               'class Interrupt:\n'
               '    def find_spec(self, name, *_):\n'
               '        if name == "mmseg_inceptionnext": raise KeyboardInterrupt\n'
               'sys.meta_path.insert(0, Interrupt())\n'
               'sys.argv = ["infer.py", "a.pth", "a.jpg", "--out-dir", "out"]\n'
               'runpy.run_path("tools/infer.py", run_name="__main__")')
    result = run_tool('-c', program, check=False)
    assert (result.returncode, result.stdout) == (130, '')
