"""SyncBN where it cannot run: reverted where one process runs, by gloo where several train on CPUs."""
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def without_sync_bn(model: nn.Module) -> nn.Module:
    """The model with each SyncBN as a BatchNorm, which has the same parameters and the same state dict.

    The recipes train with SyncBN, which runs on GPUs only, in processes that talk to each other. Whatever runs
    otherwise comes through here: the models of :func:`mmseg_inceptionnext.config.build_model`, for inference, export
    and benchmarks. Where one process trains, MMEngine's runner reverts SyncBN itself.
    """
    return revert_sync_batchnorm(model)


def sync_bn_on_cpus(model: nn.Module) -> nn.Module:
    """Lets each SyncBN of a model, which is changed in place, run on CPUs; see :class:`CPUSyncBatchNorm`."""
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = CPUSyncBatchNorm  # which has the same attributes
    return model


class CPUSyncBatchNorm(_BatchNorm):
    """PyTorch's SyncBatchNorm, which needs GPUs, for processes on CPUs: the same values, by two sums over all of them.

    It is no kind of that, as DistributedDataParallel refuses those on CPUs.

    Shape: (N, C, ...) to the same.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return super().forward(x)
        pixels, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = _Sum.apply(torch.cat((x.sum(pixels), count)))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = x - mean.view(shape)
        var = _Sum.apply((centred * centred).sum(pixels)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return centred * scale.view(shape) + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        distributed.all_reduce(grad)
        return grad


SYNCHRONISED = (nn.SyncBatchNorm, CPUSyncBatchNorm)  # a BatchNorm over the images of all processes
