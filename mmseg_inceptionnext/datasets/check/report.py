"""What a check of a dataset found, as text and as data; see ``check.py``."""
import textwrap
from collections import Counter
from typing import List, Sequence, Tuple

import numpy as np
from prettytable import PrettyTable

from .samples import Problem, Sample, Settings, mapped_counts

MOST_EXAMPLES = 20  # problems of a kind that are kept; the others are counted


class Report:
    """What was found in a dataset. Its size does not depend on the number of files.

    Args:
        name: of the split, the class and the folder.
        classes: names, by id.

    Attributes:
        problems: the first :data:`MOST_EXAMPLES` of each kind.
        totals: how many there are of each ``(level, kind)``.
        samples: how many pairs were looked at.
        counts: pixels of each value of the label files, 256 numbers.
        mapped: pixels of each value after ``reduce_zero_label`` and ``label_map``, 256 numbers.
        images: images in which each of these values occurs, 256 numbers.
    """

    def __init__(self, name: str, classes: Sequence[str] = ()) -> None:
        self.name = name
        self.classes = list(classes)
        self.problems: List[Problem] = []
        self.totals: Counter = Counter()
        self.samples = 0
        self.counts, self.mapped, self.images = np.zeros((3, 256), np.int64)

    def add(self, level: str, kind: str, path: str, message: str) -> None:
        """Adds a problem."""
        self.totals[level, kind] += 1
        if self.totals[level, kind] <= MOST_EXAMPLES:
            self.problems.append(Problem(level, kind, path, message))

    def add_sample(self, sample: Sample, settings: Settings) -> None:
        """Adds what was found in a pair."""
        self.samples += 1
        for problem in sample.problems:
            self.add(*problem)
        if sample.counts is not None:
            mapped = mapped_counts(sample.counts, settings)
            self.counts += sample.counts
            self.mapped += mapped
            self.images += mapped > 0

    def count(self, level: str) -> int:
        """How many problems there are of a level, ``error`` or ``warning``."""
        return sum(count for (found, _), count in self.totals.items() if found == level)

    def class_rows(self) -> List[Tuple[int, str, int, int]]:
        """Id, name, pixels and images of each class."""
        return [(i, name, int(self.mapped[i]), int(self.images[i])) for i, name in enumerate(self.classes[:256])]

    def to_dict(self) -> dict:
        """Everything as plain data for JSON."""
        rows = self.class_rows()
        return dict(
            name=self.name, samples=self.samples, errors=self.count('error'), warnings=self.count('warning'),
            problems=[dict(level=level, kind=kind, count=count, examples=[
                dict(path=problem.path, message=problem.message) for problem in self._of(level, kind)])
                for (level, kind), count in self._sorted()],
            classes=[dict(id=i, name=name, pixels=pixels, images=images) for i, name, pixels, images in rows],
            never=[name for _, name, pixels, _ in rows if not pixels],
            values={str(value): int(self.counts[value]) for value in np.flatnonzero(self.counts)})

    def to_text(self) -> str:
        """The table of classes, then the problems by kind, errors first."""
        lines = [f'{self.name}: {self.samples} samples']
        if self.counts.any():
            lines += self._histogram()
        for (level, kind), count in self._sorted():
            lines.append(f'{level}: {kind} ({count})')
            lines += [f'  {problem.path}: {problem.message}' for problem in self._of(level, kind)]
            lines += [f'  ... and {count - MOST_EXAMPLES} more'] * (count > MOST_EXAMPLES)
        lines.append(f'{self.name}: {self.count("error")} errors, {self.count("warning")} warnings')
        return '\n'.join(lines)

    def _histogram(self) -> List[str]:
        total = self.mapped.sum()
        table = PrettyTable(['id', 'class', 'pixels', '%', 'images'], align='r')
        table.align['class'] = 'l'
        for i, name, pixels, images in self.class_rows():
            if pixels:
                table.add_row([i, name, pixels, f'{100 * pixels / total:.2f}', images])
        never = [name for _, name, pixels, _ in self.class_rows() if not pixels]
        other = int(total - self.mapped[:len(self.classes)].sum())
        lines = [str(table), f'no class: {other} pixels ({100 * other / total:.2f} %)']
        if never:
            text = f'{len(never)} of {len(self.classes)} classes never occur: {", ".join(never)}'
            lines.append(textwrap.fill(text, 120, subsequent_indent='  '))
        return lines

    def _sorted(self) -> list:
        return sorted(self.totals.items())  # 'error' stands before 'warning'

    def _of(self, level: str, kind: str) -> List[Problem]:
        return [problem for problem in self.problems if problem[:2] == (level, kind)]
