"""The backbone under DistributedDataParallel, which fails on parameters that get no gradient."""
import pytest
import torch
from torch import distributed, nn

from mmseg_inceptionnext.models import InceptionNeXt

from utils import randomise


@pytest.fixture
def process_group(tmp_path):
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 2)])
def test_ddp_needs_no_search_for_unused_parameters(process_group, out_indices):
    arch = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48))
    norm_cfg = dict(type='BN')
    model = randomise(InceptionNeXt(arch, out_indices=out_indices, norm_cfg=norm_cfg, out_norm_cfg=norm_cfg))
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
    for _ in range(3):  # the second step is the one that raises
        sum((out * out).mean() for out in parallel(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
