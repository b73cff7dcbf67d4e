"""What is written of images, and what is left of those that fail."""
import io
import json
import os
import runpy
import shutil
import sys

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import ResultWriter, Summary, infer
from mmseg_inceptionnext.inference.overlay import find_classes

from utils import ROOT, TOY


@pytest.fixture(scope='module')
def segmenter(checkpoint):
    return Segmenter(checkpoint, probabilities=True)


@pytest.fixture
def images(toy_root):
    return toy_root / 'images/validation'


def test_every_kind_of_result(segmenter, images, tmp_path):
    output = ResultWriter(['index', 'color', 'overlay', 'prob', 'conf'], opacity=0.25)
    summary = infer(segmenter, [str(images)], str(tmp_path), output)
    assert summary.images == 3 and not summary.failures and not summary.interrupted
    assert len(list(tmp_path.iterdir())) == 15
    pixels = np.zeros(150)
    for path in images.iterdir():
        result = segmenter(path)
        stem = tmp_path / path.stem
        index = np.array(Image.open(f'{stem}.png'))
        np.testing.assert_array_equal(index, result.mask)
        np.testing.assert_array_equal(np.array(Image.open(f'{stem}_color.png')), np.array(result.palette)[index])
        probabilities = np.load(f'{stem}_prob.npz')['probabilities']
        assert probabilities.dtype == np.float16
        np.testing.assert_allclose(probabilities, result.probabilities, atol=5e-4)
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
        np.testing.assert_array_equal(result.probabilities.argmax(0), result.mask)
        np.testing.assert_array_equal(np.array(Image.open(f'{stem}_conf.png')),
                                      np.round(255 * result.probabilities.max(0)))
        overlay = np.array(Image.open(f'{stem}_overlay.jpg')).astype(int)
        assert overlay.shape == np.array(result.overlay()).shape
        assert np.abs(overlay - np.array(result.overlay(0.25))).mean() < 4  # JPEG
        pixels += np.bincount(index.ravel(), minlength=150)
    expected = {segmenter.classes[i]: pixels[i] / pixels.sum() for i in np.flatnonzero(pixels)}
    assert summary.share == pytest.approx(expected)
    assert list(summary.share.values()) == sorted(summary.share.values(), reverse=True)


def test_what_is_there_is_left_out(segmenter, images, tmp_path):
    output = ResultWriter(['index', 'conf'])
    infer(segmenter, [str(images)], str(tmp_path), output)
    kept, lost = tmp_path / 'toy_validation_00000.png', tmp_path / 'toy_validation_00001_conf.png'
    kept.write_bytes(b'untouched')
    lost.unlink()
    summary = infer(segmenter, [str(images)], str(tmp_path), output, skip_existing=True)
    assert (summary.images, summary.skipped, kept.read_bytes()) == (1, 2, b'untouched') and lost.is_file()
    assert 'with results already there' in str(summary)
    with pytest.raises(InputError, match=f'{kept} is there, is no result of this tool, and would be overwritten'):
        infer(segmenter, [str(images)], str(tmp_path), output)
    assert kept.read_bytes() == b'untouched'
    kept.unlink()
    assert infer(segmenter, [str(images)], str(tmp_path), output).images == 3  # over two results of its own


def test_results_among_the_photos_are_no_photos(segmenter, images, tmp_path, capsys):
    photos = tmp_path / 'photos'
    shutil.copytree(images, photos)
    output = ResultWriter(['index', 'color', 'overlay', 'conf'])
    first = infer(segmenter, [str(photos)], str(photos / 'results'), output)
    assert first.images == 3 and 'left out' not in capsys.readouterr().err
    second = infer(segmenter, [str(photos)], str(photos / 'results2'), output)
    assert second.images == 3 and f'{photos}: 12 results of an earlier run are left out' in capsys.readouterr().err
    assert len(list((photos / 'results2').iterdir())) == 12
    third = infer(segmenter, [str(photos)], str(photos / 'results'), output, skip_existing=True)
    assert (third.images, third.skipped) == (0, 3)
    named = str(photos / 'results/toy_validation_00000_overlay.jpg')
    assert infer(segmenter, [named], str(photos / 'results3'), output).images == 1


def test_pipes_are_named_and_the_rest_go_on(segmenter, images, tmp_path):
    shutil.copytree(images, tmp_path / 'in')
    for name in ('pipe.jpg', 'pipe.mp4'):
        os.mkfifo(tmp_path / 'in' / name)
    summary = infer(segmenter, [str(tmp_path / 'in')], str(tmp_path / 'out'))
    assert summary.images == 3 and len(summary.failures) == 2
    assert summary.failures[0] == f'{tmp_path}/in/pipe.jpg: is no file, but a pipe, a socket or a device'


@pytest.mark.parametrize('make,words', [
    (lambda: ResultWriter(['index', 'colour']), '--save index,colour: allowed are .*index,color,overlay,prob,conf'),
    (lambda: ResultWriter(['']), '--save : allowed are some of'),
    (lambda: ResultWriter(opacity=1.5), r'--opacity 1.5: allowed is 0 \(only the image\) to 1'),
    (lambda: find_classes(['rood'], ['road', 'sky']), '--classes rood: not among the 2 classes .* there is road'),
    (lambda: find_classes(['xyz'], ['road', 'sky']), '--classes xyz: .* there is road, sky'),
    (lambda: find_classes(['xyz'], [f'class {i}' for i in range(30)]), 'and none is similar'),
])
def test_wrong_options_are_explained(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_kinds_named_twice_or_with_spaces_are_written_once(segmenter, images, tmp_path):
    output = ResultWriter(['index', ' index', 'conf '])
    assert output.save == ['index', 'conf']
    infer(segmenter, [str(images)], str(tmp_path), output)
    assert len(list(tmp_path.iterdir())) == 6


def test_the_summary_has_the_percents_of_the_legend():
    summary = Summary(images=3, seconds=1.5, share={'road': 1., 'sky': 0.25, 'car': 0.0004})
    assert str(summary).splitlines() == [
        '3 images in 1.5 s, 2.00 images a second', '100.0 %  road', ' 25.0 %  sky', '< 0.1 %  car']


def test_faults_of_ours_keep_their_traceback(segmenter, images, tmp_path, monkeypatch):
    """They are no failures of a file: each would be told of all files."""
    def predict(prepared):
        raise RuntimeError('a fault')

    monkeypatch.setattr(segmenter.backend, 'predict', predict)
    with pytest.raises(RuntimeError, match='a fault'):
        infer(segmenter, [str(images)], str(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(segmenter.backend, 'prepare', predict)
    with pytest.raises(RuntimeError, match='a fault'):
        infer(segmenter, [str(images)], str(tmp_path))


def test_class_names_with_spaces_are_found():
    assert find_classes(['bed', ' sky'], ['bed ', 'sky']) == ['bed ', 'sky']  # MMSegmentation has 'bed '


def test_what_cannot_be_written_is_named_and_the_rest_go_on(segmenter, images, tmp_path):
    (tmp_path / 'toy_validation_00001.png').mkdir()
    summary = infer(segmenter, [str(images)], str(tmp_path))
    failure, = summary.failures
    assert failure.startswith(str(images / 'toy_validation_00001.jpg')) and 'could not be written to' in failure
    assert summary.images == 2 == len(summary.written)


def test_odd_images_do_not_stop_the_others(checkpoint, images, tmp_path):
    """OpenCV cannot resize a line of pixels to a scale that keeps its ratio."""
    cfg = Config.fromfile(ROOT / TOY)
    cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=(64, 64), keep_ratio=True)
    cfg.dump(tmp_path / 'cfg.py')
    Image.new('RGB', (5000, 1)).save(tmp_path / 'line.png')
    good = str(next(images.iterdir()))
    sources = [good, str(tmp_path / 'line.png'), good]
    found, outcomes = zip(*Segmenter(checkpoint, str(tmp_path / 'cfg.py')).outcomes(sources))
    assert list(found) == sources
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False]
    assert str(outcomes[1]).startswith(f'{tmp_path}/line.png: cannot be prepared for the network')


def test_the_tool(checkpoint, images, tmp_path, monkeypatch, capsys):
    """A list on standard input, some classes, JSON, and what failed."""
    shutil.copytree(images, tmp_path / 'in')
    (tmp_path / 'in/bad.jpg').write_text('no image')
    names = '\n'.join(str(path) for path in sorted((tmp_path / 'in').iterdir()))
    monkeypatch.setattr(sys, 'stdin', io.StringIO(names))
    monkeypatch.setattr(sys, 'argv', ['infer.py', str(checkpoint), '-', '--out-dir', str(tmp_path / 'out'), '--json',
                                      '--classes', 'sky,road', '--batch-size', '2', '--save', 'index,color,conf'])
    with pytest.raises(SystemExit, match='1 of 4 inputs failed'):
        runpy.run_path(str(ROOT / 'tools/infer.py'), run_name='__main__')
    summary = json.loads(capsys.readouterr().out)
    assert summary['images'] == 3 and len(summary['failures']) == 1
    assert sum(summary['share'].values()) == pytest.approx(1)
    segmenter = Segmenter(checkpoint, fuse_model=True)
    for path in images.iterdir():
        result = segmenter(path)
        index = np.array(Image.open(tmp_path / f'out/{path.stem}.png'))
        assert (index == result.mask).mean() > 0.9999
        shown = np.isin(index, [segmenter.classes.index('sky'), segmenter.classes.index('road')])
        expected = np.where(shown[..., None], np.array(segmenter.palette)[index], 0)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / f'out/{path.stem}_color.png')), expected)
