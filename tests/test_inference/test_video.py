"""Videos: what is read and written of them, and what is left of one that cannot be."""
import os
import re
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.inference import ResultWriter, infer, video


@pytest.fixture(scope='module')
def segmenter(checkpoint):
    return Segmenter(checkpoint, probabilities=True)


def write_video(path, rate=12.5, frames=7, size=(97, 64), codec='mp4v'):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size)
    generator = np.random.default_rng(0)
    for _ in range(frames):
        colors = generator.integers(0, 255, (2, 3, 3), np.uint8)
        writer.write(cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST))
    writer.release()


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        there, frame = capture.read()
        if not there:
            return rate, frames
        frames.append(frame[..., ::-1])


@pytest.mark.parametrize('suffix,codec', [('mp4', 'mp4v'), ('avi', 'MJPG')])
def test_videos_keep_frames_rate_and_size(segmenter, tmp_path, suffix, codec):
    source = tmp_path / f'film.{suffix}'
    write_video(source, codec=codec)
    out = tmp_path / 'out'
    summary = infer(segmenter, [str(source)], str(out), ResultWriter(['index', 'overlay', 'color', 'conf']))
    assert summary.images == 7 and not summary.failures
    _, frames = read_video(source)
    assert sorted(path.name for path in out.iterdir()) == ['film', 'film_color.mp4', 'film_overlay.mp4']
    assert len(list((out / 'film').iterdir())) == 14
    results = segmenter(frames)
    for kind, opacity in (('overlay', 0.5), ('color', 1.)):
        rate, written = read_video(out / f'film_{kind}.mp4')
        assert rate == pytest.approx(12.5) and len(written) == 7 and written[0].shape == (64, 96, 3)
        expected = [(1 - opacity) * result.image + opacity * np.array(result.palette)[result.mask]
                    for result in results]
        for i, frame in enumerate(written):
            errors = [np.abs(frame - picture[:, :96]).mean() for picture in expected]
            assert np.argmin(errors) == i and errors[i] < 20  # the codec halves the colours' resolution
    for i, result in enumerate(results):
        np.testing.assert_array_equal(np.array(Image.open(out / f'film/{i:06d}.png')), result.mask)
    again = infer(segmenter, [str(source)], str(out), ResultWriter(['index', 'overlay']), skip_existing=True)
    assert again.skipped == 1


def test_videos_that_cannot_be_read_are_named(segmenter, tmp_path):
    write_video(tmp_path / 'film.avi', frames=60, codec='MJPG')
    content = (tmp_path / 'film.avi').read_bytes()
    (tmp_path / 'cut.avi').write_bytes(content[:len(content) // 3])
    (tmp_path / 'text.mp4').write_text('no video')
    summary = infer(segmenter, [str(tmp_path / name) for name in ('cut.avi', 'text.mp4', 'none.mov', 'film.avi')],
                    str(tmp_path / 'out'))
    cut, text, none = summary.failures
    assert 'of its 60 frames could be read, the file is cut off or damaged; the results hold these, under names' in cut
    assert text == f'{tmp_path}/text.mp4: cannot be read as a video by this OpenCV'
    assert none == f'{tmp_path}/none.mov: no such file'
    assert summary.written == [str(tmp_path / 'out/film')]
    assert 0 < len(list((tmp_path / 'out/incomplete_cut').iterdir())) < 60
    assert (tmp_path / 'out/incomplete_cut_overlay.mp4').is_file() and not (tmp_path / 'out/cut').exists()
    again = infer(segmenter, [str(tmp_path / 'cut.avi')], str(tmp_path / 'out'), skip_existing=True)
    assert again.skipped == 0 and again.failures == [cut]
    write_video(tmp_path / 'short.avi', frames=20, codec='MJPG')
    content = (tmp_path / 'short.avi').read_bytes()
    (tmp_path / 'short.avi').write_bytes(content[:len(content) // 2])
    assert 'of its 20 frames' in infer(segmenter, [str(tmp_path / 'short.avi')], str(tmp_path / 'out')).failures[0]


def test_nothing_is_left_of_a_video_that_fails(segmenter, tmp_path, monkeypatch):
    write_video(tmp_path / 'film.mp4')
    calls = []

    def fail_late(*args):
        calls.append(args)
        if len(calls) > 3:
            raise torch.cuda.OutOfMemoryError('of the device')
        return predict(*args)

    predict = segmenter.backend.predict
    monkeypatch.setattr(segmenter.backend, 'predict', fail_late)
    summary = infer(segmenter, [str(tmp_path / 'film.mp4')], str(tmp_path / 'out'))
    assert summary.failures == [f'{tmp_path}/film.mp4: out of memory: of the device']
    assert list((tmp_path / 'out').iterdir()) == []


def test_folders_of_others_are_not_replaced(segmenter, toy_root, tmp_path):
    """The folder of a video's frames takes the place of older frames only."""
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in/film.mp4', frames=2)
    out = tmp_path / 'out'
    (out / 'film').mkdir(parents=True)
    (out / 'film/precious.txt').write_text('kept')
    summary = infer(segmenter, [str(tmp_path / 'in/film.mp4')], str(out))
    assert 'is there and is no folder of frames; nothing in it was touched' in summary.failures[0]
    assert [path.name for path in out.rglob('*')] == ['film', 'precious.txt']
    (out / 'film/precious.txt').unlink()
    for _ in range(2):
        assert infer(segmenter, [str(tmp_path / 'in/film.mp4')], str(out)).images == 2
    assert len(list((out / 'film').iterdir())) == 2
    images = toy_root / 'images/validation'
    shutil.copytree(images, tmp_path / 'in/film')
    for source, target in ((tmp_path / 'in', out), (tmp_path / 'in/film.mp4', tmp_path / 'in')):
        with pytest.raises(ValueError, match='film.mp4 would be written .* nothing was done'):
            infer(segmenter, [str(source), str(images)], str(target))
    assert len(list((tmp_path / 'in/film').iterdir())) == 3


def test_a_full_disk_is_noticed(segmenter, tmp_path, monkeypatch):
    write_video(tmp_path / 'film.mp4', frames=3)

    class Full:  # OpenCV does not say that a disk is full
        def __init__(self, path, *_):
            Path(path).write_bytes(b'cut off')

        isOpened, write, release = (lambda self, *_: True, ) * 3

    monkeypatch.setattr(video.cv2, 'VideoWriter', Full)
    summary = infer(segmenter, [str(tmp_path / 'film.mp4')], str(tmp_path / 'out'), ResultWriter(['overlay']))
    assert 'film_overlay.mp4: 0 of 3 frames could be written; is the disk full?' in summary.failures[0]
    assert list((tmp_path / 'out').iterdir()) == []


def stretch(path, times):
    """Gives the frames of a Matroska file, which OpenCV wrote at a constant rate, other times, in milliseconds."""
    content = bytearray(path.read_bytes())
    # Blocks: identifier, size, track, time within the cluster, flags.
    blocks = list(re.finditer(rb'\xa3(?:[\x81-\xff]|[\x40-\x7f].|[\x20-\x3f]..)\x81(..)[\x00\x80]', content, re.DOTALL))
    assert len(blocks) == len(times)
    for block, time in zip(blocks, times):
        content[block.start(1):block.end(1)] = time.to_bytes(2, 'big')
    duration = content.index(b'\x44\x89\x88') + 3
    content[duration:duration + 8] = np.array(times[-1] + 40., '>f8').tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize('suffix', ['mkv', 'webm'])
def test_rates_that_vary_are_kept_in_the_mean(segmenter, tmp_path, suffix):
    """As of a screen that was recorded: Matroska's nominal rate times its duration is no number of frames."""
    times = [0, 40, 80, 120, 1000, 1040, 4000, 7000]
    film = tmp_path / f'film.{suffix}'
    write_video(film, rate=25, frames=len(times), codec='MJPG' if suffix == 'mkv' else 'VP80')
    stretch(film, times)
    summary = infer(segmenter, [str(film)], str(tmp_path / 'out'), ResultWriter(['overlay']))
    assert summary.images == len(times) and not summary.failures
    rate, frames = read_video(tmp_path / 'out/film_overlay.mp4')
    assert len(frames) == len(times) and rate == pytest.approx(1, rel=1e-3)  # 7 steps in 7 seconds
    content = film.read_bytes()
    film.write_bytes(content[:len(content) * 4 // 5])
    cut, = infer(segmenter, [str(film)], str(tmp_path / 'cut')).failures
    assert re.search(r': [4-7] of its 176 frames could be read, the file is cut off', cut)


@pytest.mark.parametrize('suffix,codec', [
    ('mpg', 'PIM1'), ('MPEG', 'mpg2'), ('ts', 'mp4v'), ('ts', 'PIM1'), ('mts', 'mpg2'), ('m2ts', 'mp4v'),
    ('wmv', 'WMV2'), ('flv', 'FLV1'), ('3gp', 'mp4v'), ('m4v', 'mp4v')])
def test_all_endings_of_videos_are_read(segmenter, tmp_path, suffix, codec):
    """Also where the file claims another number of frames or another rate."""
    write_video(tmp_path / f'film.{suffix}', rate=25, frames=30, codec=codec)
    assert len(read_video(tmp_path / f'film.{suffix}')[1]) == 30
    summary = infer(segmenter, [str(tmp_path)], str(tmp_path / 'out'), ResultWriter(['overlay']))
    assert summary.images == 30 and not summary.failures
    rate, frames = read_video(tmp_path / 'out/film_overlay.mp4')
    assert len(frames) == 30 and rate == pytest.approx(25)


def test_memory_does_not_grow_with_the_length(segmenter, tmp_path, monkeypatch):
    """As many frames and results are alive at a time in a long video as in a short one."""
    alive, most = set(), {}
    prepare, read = segmenter.prepare, video.Video.__iter__

    def watch(array):
        token = object()
        alive.add(token)
        most[length] = max(most.get(length, 0), len(alive))
        weakref.finalize(array, alive.discard, token)

    def frames(self):
        for frame in read(self):
            watch(frame)
            yield frame

    def watched(source):
        prepared = prepare(source)
        watch(prepared.image)
        return prepared

    monkeypatch.setattr(segmenter, 'prepare', watched)
    monkeypatch.setattr(video.Video, '__iter__', frames)
    for length in (25, 75):
        film = tmp_path / f'{length}.avi'
        write_video(film, frames=length, codec='MJPG')
        assert infer(segmenter, [str(film)], str(tmp_path / 'out'), ResultWriter(['index', 'overlay'])).images == length
        assert not alive
    assert 4 < most[25] < 20 and most[75] < 20


def test_more_of_a_video_is_added_to_what_is_there(segmenter, tmp_path):
    """Each kind of frames counts alone; longer ones leave nothing behind."""
    write_video(tmp_path / 'film.avi', codec='MJPG')
    frames = tmp_path / 'out/film'

    def run(*kinds, **options):
        return infer(segmenter, [str(tmp_path / 'film.avi')], str(tmp_path / 'out'), ResultWriter(kinds), **options)

    def count(ending):
        return len([path for path in frames.iterdir() if re.fullmatch(rf'\d+{ending}', path.name)])

    run('index')
    (frames / '000007.png').write_bytes(b'of a longer film')
    assert run('index', 'conf', skip_existing=True).skipped == 0
    assert count('.png') == count('_conf.png') == 7
    run('prob')
    assert count('.png') == count('_conf.png') == count('_prob.npz') == 7
    assert run('prob', 'index', skip_existing=True).skipped == 1
    (frames / '000000_prob.npz').unlink()
    assert run('index', skip_existing=True).skipped == 1
    assert run('prob', 'index', skip_existing=True).skipped == 0


def test_names_that_opencv_cannot_take_are_refused(segmenter, tmp_path):
    """They crash it, and the process with it."""
    name = os.fsdecode(bytes(tmp_path) + b'/\xfefilm.avi')
    write_video(tmp_path / 'film.avi', codec='MJPG')
    os.rename(tmp_path / 'film.avi', name)
    write_video(tmp_path / 'other.avi', codec='MJPG')
    out = tmp_path / 'out'
    summary = infer(segmenter, [name, str(tmp_path / 'other.avi')], str(out), ResultWriter(['overlay']))
    assert summary.failures == [f'{name}: OpenCV takes no video whose path is not UTF-8; rename it']
    assert summary.written == [str(out / 'other')]
    out = os.fsdecode(bytes(tmp_path) + b'/\xfeout')
    failure, = infer(segmenter, [str(tmp_path / 'other.avi')], out, ResultWriter(['overlay'])).failures
    assert 'OpenCV takes no video whose path is not UTF-8' in failure
