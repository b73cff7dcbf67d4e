"""Curves of training runs."""
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmseg_inceptionnext.analysis import describe, plot_log, read_run
from mmseg_inceptionnext.analysis.plot_log import smooth
from mmseg_inceptionnext.apis import train

from utils import run_tool, short_config


def write_log(work_dir, time, lines, end=''):
    path = work_dir / time / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines) + end)
    return path


def training(iterations, **values):
    return [dict(iter=i, step=i, **{key: value(i) for key, value in values.items()}) for i in iterations]


def as_dict(curve):
    return dict(zip(*curve.tolist()))


@pytest.mark.slow
def test_curves_of_a_real_run_equal_its_json(toy_root, tmp_path):
    """And those of its resumed part, from another folder."""
    for start, max_iters in enumerate((2, 4)):
        cfg = short_config(toy_root, tmp_path, max_iters, val_interval=1)
        cfg.visualizer.name = f'{tmp_path}, start {start}'  # it belongs to a process, and keeps its folder
        train(cfg, resume=start > 0)
        folder, = tmp_path.glob('2*/vis_data')
        folder.parent.rename(tmp_path / f'1_{start}')  # the two starts may fall into one second
    paths = sorted(tmp_path.glob('*/vis_data/scalars.json'))
    assert len(paths) == 2
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    curves = read_run(str(tmp_path)).curves
    assert sorted(curves) == ['loss', 'lr', 'mIoU']
    for name in ('loss', 'lr'):
        assert as_dict(curves[name]) == {line['iter']: line[name] for line in lines if name in line}
        assert curves[name][0].tolist() == [1, 2, 3, 4]
    assert as_dict(curves['mIoU']) == {line['step']: line['mIoU'] for line in lines if 'mIoU' in line}
    assert curves['mIoU'][0].tolist() == [1, 2, 3, 4]


def test_later_logs_win_where_they_overlap(tmp_path):
    """The second start goes on from a checkpoint at 20 and ends before the first had come to."""
    write_log(tmp_path, '20260101_000000', training((10, 20, 30, 40), loss=float) + [dict(mIoU=1., step=40)])
    (tmp_path / '20260102_000000/vis_data').mkdir(parents=True)  # a start that wrote nothing
    path = write_log(tmp_path, '20260103_000000', training((30, ), loss=lambda i: -i))
    run = read_run(str(tmp_path))
    assert as_dict(run.curves['loss']) == {10: 10, 20: 20, 30: -30} and 'mIoU' not in run.curves
    assert run.notes == [f'{path} starts at iteration 30: left out 3 values that earlier logs have from there on']


def test_lines_of_a_killed_run_and_values_that_are_not_finite(tmp_path):
    lines = training((1, 2, 3), loss=lambda i: [1., np.nan, np.inf][i - 1], lr=lambda i: None if i == 2 else 0.1)
    path = write_log(tmp_path, 'a', [*lines, dict(mIoU=np.nan, step=3), [1], dict(loss=5.)], end='{"loss": 0.3, "it')
    run = read_run(str(tmp_path))
    np.testing.assert_array_equal(run.curves['loss'][1], [1, np.nan, np.inf])
    assert as_dict(run.curves['lr']) == {1: 0.1, 3: 0.1}
    note, = run.notes
    assert note.startswith(f'{path}: left out 3 lines')
    assert describe(run) == f'{tmp_path}: 3 iterations, last loss inf, 2 logged losses are not finite'
    plot_log([run], str(tmp_path / 'new/curves.png'))
    assert (tmp_path / 'new/curves.png').is_file()


def test_smoothing_is_the_mean_over_the_window():
    x = np.array([1., 2., 3., 7., 7.5, 8., 20.])
    y = np.array([1., 5., np.nan, 2., np.inf, 8., 3.])
    expected = {1.: 3., 2.: 3., 7.: 5., 8.: 5., 20.: 3.}
    assert as_dict(smooth(np.stack([x, y]), 2)) == pytest.approx(expected)


@pytest.mark.parametrize('content,words', [
    (None, r'holds no log .* LocalVisBackend'), ('', 'scalars.json: no line holds loss, lr, grad_norm, mIoU'),
    ('\0\0{"lo', 'scalars.json: no line holds')])
def test_missing_and_empty_logs_are_explained(tmp_path, content, words):
    if content is not None:
        write_log(tmp_path, 'a', [], end=content)
    with pytest.raises(ValueError, match=words):
        read_run(str(tmp_path))


def drawn_lines(monkeypatch, runs, path):
    """What the picture's panels show: of each the label and, for each line, its points."""
    from matplotlib.figure import Figure
    panels = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: panels.extend(
        (axes.get_ylabel(), [line.get_xydata() for line in axes.lines if len(line.get_xdata())])
        for axes in figure.axes))
    plot_log(runs, path)
    return panels


def test_the_picture_shows_the_values(tmp_path, monkeypatch):
    """Two runs of unequal length; the longer one is smoothed over 2 % of its iterations."""
    write_log(tmp_path / 'long', 'a', training(range(1, 501), loss=lambda i: i % 2, lr=lambda i: 10. ** -(i % 6)))
    write_log(tmp_path / 'short', 'a', training((1, 2), loss=float) + [dict(mIoU=7., step=2)])
    loss, lr, miou = drawn_lines(monkeypatch, [read_run(str(tmp_path / name)) for name in ('long', 'short')], 'a.png')
    assert loss[0].startswith('loss\n(mean over 10 iterations')
    raw, mean, short, short_mean = loss[1]
    np.testing.assert_array_equal(raw, [(i, i % 2) for i in range(1, 501)])
    assert mean[250].tolist() == [251, 5 / 11]  # of 246 to 256 five are odd
    np.testing.assert_array_equal(short, [(1, 1), (2, 2)])
    np.testing.assert_array_equal(short_mean, [(1, 1.5), (2, 1.5)])
    np.testing.assert_array_equal(lr[1][0], [(i, 10. ** -(i % 6)) for i in range(1, 501)])
    assert [line.tolist() for line in miou[1]] == [[[2, 7]]]


def test_the_command_line(tmp_path):
    """Names that matplotlib would read as formulas or leave out."""
    lines = training(range(10, 100), loss=lambda i: 1 / i, lr=float) + [dict(mIoU=40.5, step=80)]
    write_log(tmp_path / 'a/_x$y$', 'a', lines)
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    out = tmp_path / 'out/curves.png'
    text = run_tool('tools/plot_log.py', tmp_path / 'a/_x$y$', tmp_path / 'b/_x$y$', '--out', out).stdout
    for name in 'ab':
        assert f'{tmp_path}/{name}/_x$y$: 99 iterations, last loss 0.0101, best mIoU 40.50 at 80' in text
    assert text.strip().endswith(str(out)) and Image.open(out).width > 1000
    for arguments, words in (([tmp_path / 'a/_x$y$', '--out', tmp_path / 'a.xyz'], 'let the name end in one of .'),
                             ([tmp_path / 'a', '--out', out], f'{tmp_path}/a holds no log')):
        result = run_tool('tools/plot_log.py', *arguments, check=False)
        assert result.returncode == 1 and words in result.stdout and 'Traceback' not in result.stdout
