"""What this package holds on to inside MMEngine is still there."""
import inspect
import re

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmseg_inceptionnext.engine.patches import HELD, accumulated


@pytest.mark.parametrize('kind', HELD)
def test_the_private_names_are_still_used(kind):
    source = inspect.getsource(kind)
    missing = [name for name in HELD[kind] if not re.search(rf'\b{name}\b', source)]
    assert not missing, f'{kind.__name__} has no {missing} any more: see engine/patches.py'


def test_the_number_of_batches_of_a_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    assert accumulated(OptimWrapper(optimizer, accumulative_counts=3)) == 3
