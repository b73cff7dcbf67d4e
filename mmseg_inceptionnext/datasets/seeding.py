"""Randomness that depends on the seed and on the place in the run."""
import random

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers, all of which change it."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Draw(int):
    """The index of a sample, and the seed for what happens to it at this place of the run.

    Datasets that join others or repeat one take the rest of a division, or a difference; the seed stays with these.
    """

    def __new__(cls, index: int, seed: int = 0) -> 'Draw':  # a copy of a pickle sets the seed after this
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __mod__(self, other: int) -> 'Draw':
        return Draw(int(self) % other, self.seed)

    def __sub__(self, other: int) -> 'Draw':
        return Draw(int(self) - other, self.seed)
