"""Reads the curves of a training run from the JSON lines that MMEngine's runner writes."""
import glob
import json
import os.path as osp
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.evaluation import headlines

LOG = osp.join('vis_data', 'scalars.json')
TRAINING, VALIDATION = ('loss', 'lr', 'grad_norm'), tuple(headlines()[:1])  # what is read of the two kinds of lines
SMOOTHING = 0.02  # of the longest run: the window of the mean that is drawn


class Curve(NamedTuple):
    """One quantity of one run.

    Attributes:
        iterations: (N,), float64, ascending.
        values: (N,), float64; NaN and infinite where the log has such.
    """
    iterations: np.ndarray
    values: np.ndarray


class RunLog(NamedTuple):
    """What a work dir says of its run.

    Attributes:
        name: the work dir's name.
        curves: by ``loss``, ``lr``, ``grad_norm`` and ``mIoU``; what was not logged is not there.
        notes: a sentence for everything that was left out.
    """
    name: str
    curves: Dict[str, Curve]
    notes: List[str]

    @property
    def length(self) -> float:
        """The last iteration in the log."""
        return max(curve.iterations[-1] for curve in self.curves.values())


def read_runs(work_dirs: Sequence[str]) -> List[RunLog]:
    """Reads several runs; see :func:`read_run`. Work dirs of one name are called by their whole paths."""
    names = [osp.basename(osp.abspath(work_dir)) for work_dir in work_dirs]
    runs = [read_run(work_dir) for work_dir in work_dirs]
    return [run._replace(name=osp.normpath(work_dir)) if names.count(run.name) > 1 else run
            for run, work_dir in zip(runs, work_dirs)]


def read_run(work_dir: str) -> RunLog:
    """Reads all logs of a work dir as one curve.

    Each start of a run, also by ``--resume``, writes into a folder of its own, named by the time. From the first
    iteration of a later log on, what the earlier ones say is of weights that were given up, and is left out.

    Args:
        work_dir: what ``tools/train.py --work-dir`` was given.

    Raises:
        ValueError: if there is no log, or nothing in it that can be drawn.
    """
    paths = sorted(glob.glob(osp.join(glob.escape(work_dir), '*', LOG)))
    if not paths:
        raise InputError(_no_log(work_dir))
    points: List[Tuple[str, float, float]] = []  # quantity, iteration, value
    notes: List[str] = []
    for path in paths:
        lines, broken = _read_lines(path)
        if broken:
            notes.append(f'{path}: left out {broken} of {broken + len(lines)} lines, which cannot be read, such as '
                         'the last one of a run that was killed')
        new = _points(lines)
        if not new:
            continue
        start = min(iteration for _, iteration, _ in new)
        kept = [point for point in points if point[1] < start]
        if len(kept) < len(points):
            notes.append(f'{path} starts at iteration {start:g}: left out {len(points) - len(kept)} values that '
                         'earlier logs have from there on')
        points = kept + new
    if not points:
        raise InputError(f'{", ".join(paths)}: no line holds {", ".join(TRAINING + VALIDATION)} and its iteration; was '
                         'the run ended before default_hooks.logger.interval iterations?')
    curves = {}
    for name in TRAINING + VALIDATION:
        chosen = {iteration: value for key, iteration, value in points if key == name}
        if chosen:
            curves[name] = Curve(*(np.array(column) for column in zip(*sorted(chosen.items()))))
    return RunLog(osp.basename(osp.abspath(work_dir)), curves, notes)


def smooth(curve: Curve, window: float) -> Curve:
    """The mean of the finite values within half a window, in iterations, before and behind each one."""
    finite = np.isfinite(curve.values)
    x, y = curve.iterations[finite], curve.values[finite]
    sums = np.concatenate([[0.], np.cumsum(y)])
    first, last = np.searchsorted(x, x - window / 2, 'left'), np.searchsorted(x, x + window / 2, 'right')
    return Curve(x, (sums[last] - sums[first]) / (last - first))


def _no_log(work_dir: str) -> str:
    if not osp.isdir(work_dir):
        return f'{work_dir}: no such folder; give the work dir of a run'
    below = sorted({osp.dirname(osp.dirname(osp.dirname(path)))
                    for path in glob.glob(osp.join(glob.escape(work_dir), '*', '*', LOG))})
    hint = f'; there are in {" ".join(below)}: give these folders' if below else (
        '; give the work dir of a run whose visualizer has LocalVisBackend, as configs/_base_/default_runtime.py says')
    return f'{work_dir} holds no log ({osp.join("TIMESTAMP", LOG)}){hint}'


def _read_lines(path: str) -> Tuple[List[dict], int]:
    """The lines that can be read, and the number of the others."""
    lines, broken = [], 0
    with open(path, encoding='utf-8', errors='replace') as file:
        for text in filter(str.strip, file):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            lines += [line] if isinstance(line, dict) else []
            broken += not isinstance(line, dict)
    return lines, broken


def _points(lines: Sequence[dict]) -> List[Tuple[str, float, float]]:
    """The values of the lines. Those of training have ``iter``; those of validation only ``step``, which counts epochs
    where the log is by epochs: they then belong to the last iteration before them."""
    points, last = [], 0.
    by_epochs = any('epoch' in line for line in lines)
    for line in lines:
        names = TRAINING if 'iter' in line else VALIDATION
        iteration = last if by_epochs and 'iter' not in line else line.get('iter', line.get('step'))
        if not _is_number(iteration):
            continue
        last = float(iteration)
        points += [(name, last, float(line[name])) for name in names if _is_number(line.get(name))]
    return points


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
