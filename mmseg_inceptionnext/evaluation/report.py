"""What an evaluation says of each class, as files."""
import csv
import math
import os.path as osp
from typing import Dict, List, NamedTuple, Sequence

import numpy as np
from mmengine.utils import mkdir_or_exist

WRITTEN_CELLS = 30  # up to so many classes the picture has a figure in each cell
DPI = 110


class ClassReport(NamedTuple):
    """What is known of each class after an evaluation.

    Attributes:
        classes: the names.
        ratios: of each metric the value of each class, (classes,), from 0 to 1, NaN where nothing can be divided.
        predicted: pixels predicted as each class, (classes,).
        labelled: pixels labelled as each class, (classes,).
        confusion: number of pixels, (classes, classes), int64, rows label, columns prediction.
    """
    classes: Sequence[str]
    ratios: Dict[str, np.ndarray]
    predicted: np.ndarray
    labelled: np.ndarray
    confusion: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Indices of the classes that occur in the labels or in the predictions."""
        return np.flatnonzero(self.predicted + self.labelled)

    @property
    def absent(self) -> List[str]:
        """Names of the classes that occur in neither."""
        present = set(self.present.tolist())
        return [name for i, name in enumerate(self.classes) if i not in present]


def write_report(report: ClassReport, folder: str, prefix: str = '') -> List[str]:
    """Writes ``per_class.csv``, ``confusion.npy`` and ``confusion.png`` to a folder; ``prefix`` precedes their names.

    The table has a row for each class, in percent, with an empty field where nothing can be divided, and the number of
    pixels labelled and predicted. The matrix is int64, rows label, columns prediction.

    Returns:
        The paths written.
    """
    mkdir_or_exist(folder)
    table, matrix, picture = paths = [
        osp.join(folder, prefix + name) for name in ('per_class.csv', 'confusion.npy', 'confusion.png')]
    with open(table, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['class', *report.ratios, 'labelled_pixels', 'predicted_pixels'])
        for i, name in enumerate(report.classes):
            values = [100 * float(ratio[i]) for ratio in report.ratios.values()]
            pixels = int(report.labelled[i]), int(report.predicted[i])
            writer.writerow([name, *('' if math.isnan(value) else value for value in values), *pixels])
    np.save(matrix, report.confusion)
    draw_confusion(report, picture)
    return paths


def draw_confusion(report: ClassReport, path: str) -> None:
    """Draws the confusion matrix: of the pixels labelled as a row's class, the share predicted as each column's.

    Classes that occur neither in the labels nor in the predictions are left out. A class that is predicted and never
    labelled has an empty row. The suffix of ``path`` says which kind of picture it is.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    shown = report.present
    share = report.confusion[np.ix_(shown, shown)] / np.maximum(report.confusion.sum(1)[shown], 1)[:, None]
    small = len(shown) <= WRITTEN_CELLS
    side = max(5., (0.5 if small else 0.17) * len(shown))  # inches
    figure = Figure(figsize=(side + 2.5, side + 2), layout='constrained')
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap='Blues', norm=PowerNorm(0.5, 0, 1))  # so that a confusion of a few percent shows
    _name_classes(axes, [report.classes[i].strip().replace('$', r'\$') for i in shown], small)
    for row, col in np.argwhere(share >= 0.0005) if small else ():
        value = 100 * share[row, col]
        axes.text(col, row, f'{value:.0f}' if value >= 9.95 else f'{value:.1f}', ha='center', va='center', fontsize=7,
                  color='white' if value > 40 else 'black')
    size = 10 if small else 18
    for write, text in ((axes.set_xlabel, 'predicted'), (axes.set_ylabel, 'labelled'), (axes.set_title, (
            f'share of the labelled pixels, in percent; {len(shown)} of {len(report.classes)} classes occur'))):
        write(text, fontsize=size)
    bar = figure.colorbar(image, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1], shrink=0.6 if small else 0.25,
                          aspect=20, pad=0.02)
    bar.ax.set_yticklabels(['0', '1', '5', '10', '25', '50', '75', '100'])
    figure.savefig(path, dpi=DPI)


def _name_classes(axes, names: List[str], small: bool) -> None:
    size = 9 if small else 7
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    if not small:  # the way to the edge is long
        axes.tick_params(top=True, labeltop=True, right=True, labelright=True)
    edges = np.arange(len(names) + 1) - 0.5
    for lines, color, width in ((edges, '0.9', 0.4), ([] if small else edges[::10], '0.6', 0.8)):
        axes.hlines(lines, edges[0], edges[-1], color, linewidth=width)
        axes.vlines(lines, edges[0], edges[-1], color, linewidth=width)
    axes.set(xlim=edges[[0, -1]], ylim=edges[[-1, 0]])


