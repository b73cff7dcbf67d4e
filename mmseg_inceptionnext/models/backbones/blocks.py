"""The block that every MetaNeXt is built of."""
from contextlib import contextmanager, nullcontext
from typing import Iterator

import torch
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .norms import build_norm


class ConvMlp(nn.Module):
    """Two 1x1 convolutions with an activation between: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, in_channels: int, hidden_channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_channels, hidden_channels, 1)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Conv2d(hidden_channels, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class MetaNeXtBlock(nn.Module):
    """``Y = X + DropPath(gamma * MLP(Norm(TokenMixer(X))))``, with one shortcut (InceptionNeXt, figure 2).

    Args:
        dim: number of channels.
        token_mixer: config of the token mixer; it receives ``in_channels`` and ``dilation``.
        mlp_ratio: width of the hidden layer in units of ``dim``.
        norm_cfg: config of the norm.
        act_cfg: config of the activation in the MLP.
        drop_path: probability of dropping the branch for a sample.
        layer_scale_init_value: initial value of ``gamma``; 0 leaves it out.
        dilation: spacing of the token mixer's taps, in pixels.
    """

    def __init__(self,
                 dim: int,
                 token_mixer: dict,
                 mlp_ratio: float,
                 norm_cfg: dict,
                 act_cfg: dict,
                 drop_path: float = 0.,
                 layer_scale_init_value: float = 1e-6,
                 dilation: int = 1) -> None:
        super().__init__()
        self.token_mixer = MODELS.build(dict(token_mixer, in_channels=dim, dilation=dilation))
        self.norm = build_norm(norm_cfg, dim)
        self.mlp = ConvMlp(dim, int(mlp_ratio * dim), act_cfg)
        self.gamma = nn.Parameter(torch.full((dim, ), layer_scale_init_value)) if layer_scale_init_value else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.token_mixer(x)))
        if self.gamma is not None:
            y = y * self.gamma.view(1, -1, 1, 1)
        return x + self.drop_path(y)


def run_block(block: MetaNeXtBlock, x: Tensor, with_cp: bool) -> Tensor:
    """Runs a block; ``with_cp`` recomputes it in the backward pass instead of keeping its activations."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), frozen_running_stats(block)))
    return block(x)


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm from updating its running statistics, in train mode too.

    A checkpointed block runs forward twice in a step; only the first pass may count. The second one updates copies,
    since it must save as many tensors as the first, running statistics included.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    buffers = [dict(norm.named_buffers()) for norm in norms]
    try:
        for norm, own in zip(norms, buffers):
            for name, value in own.items():
                setattr(norm, name, value.clone())
        yield
    finally:
        for norm, own in zip(norms, buffers):
            for name, value in own.items():
                setattr(norm, name, value)
