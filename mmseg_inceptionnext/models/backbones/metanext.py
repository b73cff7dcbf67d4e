"""MetaNeXt: the four-stage backbone that ConvNeXt and InceptionNeXt are instances of."""
from typing import List, Optional, Sequence, Tuple

import torch
from mmseg.registry import MODELS
from timm.layers import create_conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .base import TRUNC_NORMAL, MetaNeXtBase
from .blocks import MetaNeXtBlock, run_block
from .norms import build_norm

PATCH_SIZE = 4  # side and stride of the stem's convolution, in pixels


class MetaNeXtStage(nn.Module):
    """A downsampling (norm, then a 2x2 convolution) and the blocks that follow it.

    Args:
        in_channels: channels of the incoming map.
        out_channels: channels of the stage.
        drop_path_rates: one rate for each block, so its length is the depth.
        stride: 1 or 2, by which the map shrinks.
        downsample: whether the stage starts with a downsampling; the first one does not.
        dilation: dilation of the token mixers.
        with_cp: recompute each block in the backward pass instead of keeping its activations.
        norm_cfg: config of the norms.
        **block_cfg: further arguments of :class:`MetaNeXtBlock`.

    Shape: (N, in_channels, H, W) to (N, out_channels, H // stride, W // stride).
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 drop_path_rates: Sequence[float],
                 stride: int,
                 downsample: bool,
                 dilation: int,
                 with_cp: bool,
                 norm_cfg: dict,
                 **block_cfg) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.downsample = nn.Identity()
        if downsample:
            # A stage that keeps its resolution convolves at the dilation of the stage before, "same"-padded as in timm.
            keeps_size = stride == 1
            self.downsample = nn.Sequential(
                build_norm(norm_cfg, in_channels),
                create_conv2d(
                    in_channels, out_channels, 2, stride=stride, bias=True,
                    dilation=2 if dilation > 2 and keeps_size else 1, padding='same' if keeps_size else 0))
        self.blocks = nn.Sequential(*[
            MetaNeXtBlock(out_channels, norm_cfg=norm_cfg, drop_path=rate, dilation=dilation, **block_cfg)
            for rate in drop_path_rates
        ])

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = run_block(block, x, self.with_cp)
        return x


@MODELS.register_module()
class MetaNeXt(MetaNeXtBase):
    """Four-stage backbone with one shortcut a block (InceptionNeXt, section 3.1).

    Parameter names are those of the authors' and timm's checkpoints: ``stem``, ``stages.S.downsample``,
    ``stages.S.blocks.B.{token_mixer,norm,mlp,gamma}``. The norms on the outputs are ``norm0`` ... ``norm3``. Only what
    the outputs need is built: no classifier, no stage after the last output.

    Args:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        token_mixer: config of the token mixer, one for all stages or a list with one for each.
        mlp_ratios: hidden width of the MLP in units of the stage's channels, a number or one for each stage.
        in_channels: channels of the image.
        out_indices: stages whose maps are returned, counted from 0.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 over all blocks.
        layer_scale_init_value: initial value of each block's ``gamma``; 0 leaves ``gamma`` out.
        norm_cfg: config of the norms of the trunk.
        act_cfg: config of the activation in the MLPs.
        out_norm_cfg: config of a new norm on each output map, None for none. The authors use SyncBN, as in the trunk
            (their repository's issues 10 and 11); a classifier's checkpoint does not hold these norms.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages. Frozen parameters get no
            gradient and frozen norms stay in eval mode. Output norms are never frozen: they are new.
        norm_eval: keep every BatchNorm in eval mode, those on the outputs included (untrained ones are then a
            learned scale and shift).
        with_cp: recompute blocks in the backward pass to save memory. Same gradients, same running statistics.
        dilations: dilation of each stage. Ones, then doubling from the first stage that keeps its resolution:
            ``(1, 1, 1, 2)`` ends at stride 16, ``(1, 1, 2, 4)`` at stride 8. Default: all 1, which ends at 32.
        init_cfg: MMEngine's initialisation config. Default: truncated normal, std 0.02, biases zero, as published.
            ``dict(type='Pretrained', checkpoint=FILE)`` loads a classifier's trunk, whole or not at all; beside them
            ``allow_partial=True`` loads what fits. FILE as in :func:`mmseg_inceptionnext.engine.load_source`.

    Shape: (N, in_channels, H, W) to a tuple of (N, dims[i], H / s, W / s) for i in ``out_indices``, where s is 4, 8,
    16, 32 without dilation; divisions round down at each stage.

    Raises:
        ValueError: for settings that do not fit together, and for images smaller than the last stride.
    """

    def __init__(self,
                 depths: Sequence[int],
                 dims: Sequence[int],
                 token_mixer,
                 mlp_ratios=4,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 layer_scale_init_value: float = 1e-6,
                 norm_cfg: dict = dict(type='SyncBN'),
                 act_cfg: dict = dict(type='GELU'),
                 out_norm_cfg: Optional[dict] = dict(type='SyncBN'),
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 dilations: Optional[Sequence[int]] = None,
                 init_cfg=TRUNC_NORMAL) -> None:
        num_stages = len(depths)
        super().__init__('stages', num_stages, out_indices, init_cfg)
        dilations = self._check_dilations(dilations or (1, ) * num_stages, num_stages)
        dims = _one_for_each_stage('dims', dims, num_stages)
        mlp_ratios = _one_for_each_stage('mlp_ratios', mlp_ratios, num_stages)
        token_mixers = _one_for_each_stage('token_mixer', token_mixer, num_stages)
        drop_path_rates = torch.linspace(0, drop_path_rate, sum(depths)).split(list(depths))

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, dims[0], PATCH_SIZE, stride=PATCH_SIZE),
            build_norm(norm_cfg, dims[0]))
        self.stages = nn.ModuleList()
        self.output_stride = PATCH_SIZE
        for i in range(self.num_built):
            stride = 2 if i > 0 and dilations[i] == 1 else 1
            self.output_stride *= stride
            self.stages.append(
                MetaNeXtStage(
                    dims[max(i - 1, 0)], dims[i], drop_path_rates[i].tolist(), stride, downsample=i > 0,
                    dilation=dilations[i], with_cp=with_cp, norm_cfg=norm_cfg, token_mixer=token_mixers[i],
                    mlp_ratio=mlp_ratios[i], act_cfg=act_cfg, layer_scale_init_value=layer_scale_init_value))
        self._add_output_norms(out_norm_cfg, dims)

        self.frozen_stages = self._check_frozen_stages(frozen_stages)
        self.norm_eval = norm_eval
        for module in self._frozen_modules():
            module.requires_grad_(False)

    @staticmethod
    def _check_dilations(dilations: Sequence[int], num_stages: int) -> Tuple[int, ...]:
        keeping = sum(d > 1 for d in dilations)
        expected = (1, ) * (num_stages - keeping) + tuple(2**(i + 1) for i in range(keeping))
        if tuple(dilations) != expected or keeping >= num_stages:
            raise ValueError(f'dilations={tuple(dilations)}: give {num_stages} values, ones first, then doubling from '
                             'the first stage that keeps its resolution, such as (1, 1, 1, 2) for stride 16 or '
                             '(1, 1, 2, 4) for stride 8')
        return expected

    def _check_frozen_stages(self, frozen_stages: int) -> int:
        if not -1 <= frozen_stages <= len(self.stages):
            raise ValueError(f'frozen_stages={frozen_stages}: allowed are -1 (nothing), 0 (the stem) and '
                             f'1..{len(self.stages)} (the stem and that many stages)')
        return frozen_stages

    def _frozen_modules(self) -> List[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.stem, *self.stages[:self.frozen_stages]]

    def train(self, mode: bool = True) -> 'MetaNeXt':
        """Sets the mode; frozen modules, and with ``norm_eval`` all BatchNorms, stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        self._check_size(x)
        outs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x))
        return tuple(outs)


def _one_for_each_stage(name: str, value, num_stages: int) -> list:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * num_stages
    if len(values) != num_stages:
        raise ValueError(f'{name} has {len(values)} entries for {num_stages} stages: give one for each, or one for all')
    return values
