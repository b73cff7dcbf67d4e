"""Draws the curves of training runs."""
import os.path as osp
from typing import List, Sequence

import numpy as np

from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.errors import InputError

from .run_log import SMOOTHING, Curve, RunLog, smooth

PANELS = {'loss': 'loss', 'lr': 'learning rate', 'grad_norm': 'norm of the gradient', 'mIoU': 'mIoU, validation (%)'}
SMOOTHED = ('loss', 'grad_norm')
LOG_RATIO = 100  # largest to smallest value from which on a logarithmic axis shows more


def plot_log(runs: Sequence[RunLog], path: str) -> None:
    """Draws loss, learning rate, mIoU and, where it was logged, the norm of the gradient against the iterations.

    Noisy curves are drawn as a mean over a window of iterations, the same for all runs and named at the axis, with the
    logged values faint behind. Crosses at the upper edge stand for values that are NaN or infinite.

    Args:
        runs: see :func:`read_runs`; at least one.
        path: the picture to write; its suffix says which kind.

    Raises:
        ValueError: if pictures of that kind cannot be written.
    """
    from matplotlib.figure import Figure
    names = [name for name in PANELS if any(name in run.curves for run in runs)]
    figure = Figure(figsize=(9, 0.8 + 2.6 * len(names)), layout='constrained')
    suffix = osp.splitext(path)[1][1:].lower()
    kinds = figure.canvas.get_supported_filetypes()
    if suffix not in kinds:
        raise InputError(f'{path}: no picture of this kind can be written; let the name end in one of '
                         f'{" ".join(f".{kind}" for kind in sorted(kinds))}')
    colors = _colors(len(runs))
    window = SMOOTHING * max(run.length for run in runs)
    for name, axes in zip(names, figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]):
        _draw_panel(axes, name, runs, colors, window)
    axes.set_xlabel('iterations')
    axes.set_xlim(left=0)
    _legend(figure, runs, colors)
    make_folder(path)
    figure.savefig(path, dpi=130)


def _draw_panel(axes, name: str, runs: Sequence[RunLog], colors: Sequence, window: float) -> None:
    """One quantity of all runs."""
    curves = [run.curves[name] for run in runs if name in run.curves]
    smoothed = name in SMOOTHED and any(_has_neighbours(curve, window) for curve in curves)
    for i, (run, color) in enumerate(zip(runs, colors)):
        if name in run.curves:
            # Learning rates are often the same: the first run's line is wide enough to be seen under the last's.
            extra = 4 * (1 - (i + 1) / len(runs)) if name == 'lr' else 0
            _draw(axes, run.curves[name], color, window if smoothed else 0., 1.6 + extra, dots=name == 'mIoU')
    note = f'\n(mean over {window:g} iterations;\nfaint: as logged)' if smoothed else ''
    axes.set_ylabel(PANELS[name] + note)
    axes.grid(alpha=0.3)
    if name == 'lr' and _spans_decades(curves):
        axes.set_yscale('log', nonpositive='mask')


def describe(run: RunLog) -> str:
    """One line: how long the run is, its last loss, how many losses are not finite, and its best mIoU."""
    parts = [f'{run.length:g} iterations']
    if 'loss' in run.curves:
        losses = run.curves['loss'].values
        parts.append(f'last loss {losses[-1]:.4g}')
        bad = np.count_nonzero(~np.isfinite(losses))
        parts += [f'{bad} logged losses are not finite'] if bad else []
    best = _best(run)
    return f'{run.name}: {", ".join(parts + ([best] if best else []))}'


def _best(run: RunLog) -> str:
    if 'mIoU' not in run.curves or not np.isfinite(run.curves['mIoU'].values).any():
        return ''
    iterations, values = run.curves['mIoU']
    best = np.nanargmax(np.where(np.isfinite(values), values, np.nan))
    return f'best mIoU {values[best]:.2f} at {iterations[best]:g}'


def _colors(count: int) -> List:
    from matplotlib import colormaps
    return [colormaps['tab10'](i) if count <= 10 else colormaps['turbo']((i + 0.5) / count) for i in range(count)]


def _has_neighbours(curve: Curve, window: float) -> bool:
    """Whether a window holds several values."""
    return len(curve.iterations) > 1 and bool(np.median(np.diff(curve.iterations)) <= window / 4)


def _spans_decades(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([curve.values for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    return len(values) > 0 and values.max() > LOG_RATIO * values.min()


def _draw(axes, curve: Curve, color, window: float, width: float, dots: bool) -> None:
    finite = np.isfinite(curve.values)
    # A single value has no line.
    marker = dict(marker='o', markersize=4 if dots else 2.5) if dots or finite.sum() < 2 else {}
    line = dict(color=color, linewidth=width, **marker)
    logged = np.where(finite, curve.values, np.nan)  # the line has a gap there
    if window:
        axes.plot(curve.iterations, logged, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(*smooth(curve, window), **line)
    else:
        axes.plot(curve.iterations, logged, **line)
    bad = curve.iterations[~finite]
    axes.plot(bad, np.full(len(bad), 0.97), 'x', color=color, transform=axes.get_xaxis_transform())


def _legend(figure, runs: Sequence[RunLog], colors: Sequence) -> None:
    from matplotlib.lines import Line2D
    labels = [f'{run.name}   ({_best(run) or "no mIoU yet"})'.replace('$', r'\$') for run in runs]
    handles = [Line2D([], [], color=color, linewidth=2) for color in colors]
    if any(not np.isfinite(curve.values).all() for run in runs for curve in run.curves.values()):
        handles.append(Line2D([], [], color='black', marker='x', linestyle=''))
        labels.append('not finite (NaN or infinite)')
    figure.legend(handles, labels, loc='outside upper center', ncols=1 if len(labels) < 3 else 2)

