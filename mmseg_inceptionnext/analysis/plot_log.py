"""Curves of training runs, from the JSON lines that MMEngine's runner writes."""
import glob
import json
import os.path as osp
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.evaluation import headlines

LOG = osp.join('vis_data', 'scalars.json')
CURVES = {'loss': 'loss', 'lr': 'learning rate', 'grad_norm': 'norm of the gradient',
          **{name: f'{name}, validation (%)' for name in headlines()[:1]}}
SMOOTHED = ('loss', 'grad_norm')
WINDOW = 0.02  # of the longest run: what a smoothed value is the mean over


class RunLog(NamedTuple):
    """What a work dir says of its run.

    Attributes:
        name: the work dir.
        curves: by the names of :data:`CURVES` the iterations, ascending, and their values, NaN and infinite ones too:
            (2, N), float64. What was not logged is not there.
        notes: a sentence for everything that was left out.
    """
    name: str
    curves: Dict[str, np.ndarray]
    notes: List[str]

    @property
    def length(self) -> float:
        """The last iteration in the log."""
        return max(curve[0, -1] for curve in self.curves.values())


def read_run(work_dir: str) -> RunLog:
    """Reads all logs of a work dir as one run.

    Each start of a run, also by ``--resume``, writes into a folder of its own, named by the time. From the first
    iteration of a later log on, what the earlier ones say is of weights that were given up, and is left out.

    Raises:
        InputError: if there is no log, or nothing in it that can be drawn.
    """
    paths = sorted(glob.glob(osp.join(glob.escape(work_dir), '*', LOG)))
    if not paths:
        raise InputError(f'{work_dir} holds no log ({osp.join("TIMESTAMP", LOG)}): give the work dir of a run, whose '
                         'visualizer has LocalVisBackend, as configs/_base_/default_runtime.py says')
    points: List[Tuple[float, str, float]] = []  # iteration, quantity, value
    notes: List[str] = []
    for path in paths:
        new, unread = _read_points(path)
        start = min(new)[0] if new else np.inf
        kept = [point for point in points if point[0] < start]
        if unread:
            notes.append(f'{path}: left out {unread} lines, which cannot be read, such as the last of a killed run')
        if len(kept) < len(points):
            notes.append(f'{path} starts at iteration {start:g}: left out {len(points) - len(kept)} values that '
                         'earlier logs have from there on')
        points = kept + new
    if not points:
        raise InputError(f'{", ".join(paths)}: no line holds {", ".join(CURVES)} and its step; was the run ended '
                         'before default_hooks.logger.interval iterations?')
    found = {name: dict(sorted((x, value) for x, key, value in points if key == name)) for name in CURVES}
    curves = {name: np.array([list(each), list(each.values())]) for name, each in found.items() if each}
    return RunLog(osp.normpath(work_dir), curves, notes)


def _read_points(path: str) -> Tuple[List[Tuple[float, str, float]], int]:
    """The values of the lines, whose ``step`` is the iteration, and the number of lines that cannot be read."""
    points, unread = [], 0
    with open(path, encoding='utf-8', errors='replace') as file:
        for text in filter(str.strip, file):
            try:
                line = json.loads(text)
                points += [(float(line['step']), name, float(line[name])) for name in CURVES
                           if line.get(name) is not None]
            except (ValueError, TypeError, KeyError, AttributeError):
                unread += 1
    return points, unread


def smooth(curve: np.ndarray, window: float) -> np.ndarray:
    """The mean of the finite values within half a window, in iterations, before and behind each one."""
    x, y = curve[:, np.isfinite(curve[1])]
    sums = np.concatenate([[0.], np.cumsum(y)])
    first, last = np.searchsorted(x, x - window / 2, 'left'), np.searchsorted(x, x + window / 2, 'right')
    return np.stack([x, (sums[last] - sums[first]) / (last - first)])


def plot_log(runs: Sequence[RunLog], path: str) -> None:
    """Draws the :data:`CURVES` of runs, at least one, against the iterations.

    Noisy curves are drawn as a mean over a window of iterations, the same for all runs and named at the axis, with the
    logged values faint behind. Crosses at the upper edge stand for values that are NaN or infinite.

    Raises:
        InputError: if pictures of the kind that the suffix of ``path`` names cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    names = [name for name in CURVES if any(name in run.curves for run in runs)]
    figure = Figure(figsize=(9, 0.8 + 2.6 * len(names)), layout='constrained')
    kinds = figure.canvas.get_supported_filetypes()
    if osp.splitext(path)[1][1:].lower() not in kinds:
        raise InputError(f'{path}: no picture of this kind can be written; let the name end in one of '
                         f'{" ".join(f".{kind}" for kind in sorted(kinds))}')
    window = WINDOW * max(run.length for run in runs)
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for name, axes in zip(names, panels):
        axes.set_ylabel(CURVES[name] + f'\n(mean over {window:g} iterations;\nfaint: as logged)' * (name in SMOOTHED))
        axes.grid(alpha=0.3)
        for i, run in enumerate(runs):
            if name in run.curves:
                color = colormaps['turbo']((i + 0.5) / len(runs))
                _draw(axes, run.curves[name], color, window * (name in SMOOTHED), run.name.replace('$', r'\$'))
    axes.set_xlabel('iterations; crosses: not finite')
    axes.set_xlim(left=0)
    # A name that begins with _ would be left out of the legend.
    lines = {line.get_gid(): line for axes in panels for line in axes.lines if line.get_gid()}
    figure.legend(lines.values(), lines, loc='outside upper center', ncols=2)
    make_folder(path)
    figure.savefig(path, dpi=130)


def _draw(axes, curve: np.ndarray, color, window: float, name: str) -> None:
    iterations, values = curve
    finite = np.isfinite(values)
    logged = iterations, np.where(finite, values, np.nan)  # the line has a gap there
    if window:
        axes.plot(*logged, color=color, alpha=0.25, linewidth=0.8)
    marker = dict(marker='o', markersize=3) if finite.sum() < 50 else {}
    axes.plot(*(smooth(curve, window) if window else logged), color=color, gid=name, **marker)
    bad = iterations[~finite]
    axes.plot(bad, np.full(len(bad), 0.97), 'x', color=color, transform=axes.get_xaxis_transform())


def describe(run: RunLog) -> str:
    """One line: how long the run is, its last loss, how many losses are not finite, and its best mIoU."""
    parts = [f'{run.length:g} iterations']
    if 'loss' in run.curves:
        losses = run.curves['loss'][1]
        bad = np.count_nonzero(~np.isfinite(losses))
        parts += [f'last loss {losses[-1]:.4g}', *[f'{bad} logged losses are not finite'] * bool(bad)]
    validations = [point for point in run.curves.get('mIoU', np.empty((2, 0))).T if np.isfinite(point[1])]
    if validations:
        iteration, best = max(validations, key=lambda point: point[1])
        parts.append(f'best mIoU {best:.2f} at {iteration:g}')
    return f'{run.name}: {", ".join(parts)}'
