"""What a check of a dataset found, as text and as data."""
import textwrap
from collections import Counter
from typing import List, NamedTuple, Sequence

import numpy as np
from prettytable import PrettyTable

MOST_EXAMPLES = 20  # problems of a kind that are kept; the others are counted


class Problem(NamedTuple):
    """What is wrong: its level, ``error`` or ``warning``; one of a few kinds; the file or setting; and the sentence."""
    level: str
    kind: str
    path: str
    message: str


class Report:
    """What was found in a dataset. Its size does not depend on the number of files.

    Args:
        name: of the split, the class and the folder.
        classes: names, by id.

    Attributes:
        problems: the first :data:`MOST_EXAMPLES` of each level and kind.
        totals: how many there are of each level and kind.
        samples: how many pairs were checked.
        counts: pixels of each value of the label files, 256 numbers.
        mapped: pixels of each value after ``reduce_zero_label`` and ``label_map``, 256 numbers.
        images: images in which each of these values occurs, 256 numbers.
    """

    def __init__(self, name: str, classes: Sequence[str] = ()) -> None:
        self.name, self.classes, self.samples = name, list(classes), 0
        self.problems: List[Problem] = []
        self.totals: Counter = Counter()
        self.counts, self.mapped, self.images = np.zeros((3, 256), np.int64)

    def add(self, *problems: Problem) -> None:
        """Adds problems."""
        for problem in problems:
            self.totals[problem[:2]] += 1
            if self.totals[problem[:2]] <= MOST_EXAMPLES:
                self.problems.append(problem)

    def add_label(self, counts: np.ndarray, values: np.ndarray) -> None:
        """Adds the pixels of each value of a label file; ``values`` is what becomes of each value."""
        mapped = np.bincount(values, weights=counts, minlength=256).astype(np.int64)
        self.counts += counts
        self.mapped += mapped
        self.images += mapped > 0

    def count(self, level: str) -> int:
        """How many problems there are of a level, ``error`` or ``warning``."""
        return sum(count for (found, _), count in self.totals.items() if found == level)

    def to_dict(self) -> dict:
        """Everything as plain data for JSON; problems by kind, errors first."""
        return dict(
            name=self.name, samples=self.samples, errors=self.count('error'), warnings=self.count('warning'),
            problems=[dict(level=level, kind=kind, count=count, examples=[
                dict(path=problem.path, message=problem.message) for problem in self.problems
                if problem[:2] == (level, kind)]) for (level, kind), count in sorted(self.totals.items())],
            classes=[dict(id=i, name=name, pixels=int(self.mapped[i]), images=int(self.images[i]))
                     for i, name in enumerate(self.classes[:256])],
            never=[name for name, pixels in zip(self.classes, self.mapped) if not pixels],
            values={str(value): int(self.counts[value]) for value in np.flatnonzero(self.counts)})

    def to_text(self) -> str:
        """The table of classes, then the problems."""
        data, total = self.to_dict(), self.mapped.sum()
        lines = [f'{self.name}: {self.samples} samples']
        if total:
            table = PrettyTable(['id', 'class', 'pixels', '%', 'images'], align='r')
            table.align['class'] = 'l'
            for row in data['classes']:
                if row['pixels']:
                    share = f'{100 * row["pixels"] / total:.2f}'
                    table.add_row([row['id'], row['name'], row['pixels'], share, row['images']])
            other = int(total - self.mapped[:len(self.classes)].sum())
            lines += [str(table), f'no class: {other} pixels ({100 * other / total:.2f} %)']
        if total and data['never']:
            text = f'{len(data["never"])} of {len(self.classes)} classes never occur: {", ".join(data["never"])}'
            lines.append(textwrap.fill(text, 120, subsequent_indent='  '))
        for group in data['problems']:
            lines.append(f'{group["level"]}: {group["kind"]} ({group["count"]})')
            lines += [f'  {problem["path"]}: {problem["message"]}' for problem in group['examples']]
            lines += [f'  ... and {group["count"] - MOST_EXAMPLES} more'] * (group['count'] > MOST_EXAMPLES)
        lines.append(f'{self.name}: {data["errors"]} errors, {data["warnings"]} warnings')
        return '\n'.join(lines)
