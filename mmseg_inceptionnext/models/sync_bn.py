"""Where SyncBN is reverted."""
from mmengine.model import revert_sync_batchnorm
from torch import nn


def without_sync_bn(model: nn.Module) -> nn.Module:
    """The model with each SyncBN as a BatchNorm, which has the same parameters and the same state dict.

    The recipes train with SyncBN, which runs on GPUs only, in processes that talk to each other. Whatever runs
    otherwise comes through here: the models of :func:`mmseg_inceptionnext.config.build_model`, for inference, export
    and benchmarks, and training by several processes on CPUs (``SegRunner``). Where one process trains, MMEngine's
    runner reverts SyncBN itself.
    """
    return revert_sync_batchnorm(model)
