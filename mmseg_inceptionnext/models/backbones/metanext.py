"""MetaNeXt, from block to model: the network that ConvNeXt and InceptionNeXt are instances of."""
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule, initialize
from mmseg.registry import MODELS
from timm.layers import LayerNorm2d, create_conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmseg_inceptionnext.errors import CheckpointError, InputError
from mmseg_inceptionnext.models.compat import is_traced
from mmseg_inceptionnext.parts import type_name

from .pretrained import load_pretrained

PATCH_SIZE = 4  # side and stride of the stem's convolution, in pixels

# Cut at 5 std: at the default cut of +-2, which is 100 std, the single-precision sampling of PyTorch draws about one
# weight in 17 million at the cut itself, and one weight of -2 among values of 0.02 is a bad start.
TRUNC_NORMAL = dict(type='TruncNormal', layer='Conv2d', std=0.02, a=-0.1, b=0.1, bias=0.)


def build_norm(norm_cfg: Optional[dict], channels: int) -> nn.Module:
    """A norm for maps of (N, channels, H, W) by MMCV's ``norm_cfg``; None for none.

    ``LN`` normalises over the channels of each pixel; MMCV's own would do so over the last dimension, which is W in a
    map. ``eps`` is 1e-5 unless given; ConvNeXt's is 1e-6.
    """
    if not norm_cfg:
        return nn.Identity()
    if type_name(norm_cfg) in ('LN', 'LayerNorm'):
        norm_cfg = dict(norm_cfg, type=LayerNorm2d)
    return build_norm_layer(norm_cfg, channels)[1]


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
        with_cp: recompute the block in the backward pass instead of keeping its activations.
        dilation: spacing of the token mixer's taps, in pixels.
    """

    def __init__(self, dim: int, token_mixer: dict, mlp_ratio: float, norm_cfg: dict, act_cfg: dict,
                 drop_path: float = 0., layer_scale_init_value: float = 1e-6, with_cp: bool = False,
                 dilation: int = 1) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.token_mixer = MODELS.build(dict(token_mixer, in_channels=dim, dilation=dilation))
        self.norm = build_norm(norm_cfg, dim)
        self.mlp = ConvMlp(dim, int(mlp_ratio * dim), act_cfg)
        self.gamma = nn.Parameter(torch.full((dim, ), layer_scale_init_value)) if layer_scale_init_value else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and torch.is_grad_enabled() and not is_traced():
            return checkpoint(self._forward, x, use_reentrant=False,
                              context_fn=lambda: (nullcontext(), frozen_running_stats(self)))
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.token_mixer(x)))
        if self.gamma is not None:
            y = y * self.gamma.view(1, -1, 1, 1)
        return x + self.drop_path(y)


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm from updating its running statistics, in train mode too.

    A checkpointed block runs forward twice in a step; only the first pass may count. The second one updates copies,
    since it must save as many tensors as the first, running statistics included.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    try:
        for norm, name, value in kept:
            setattr(norm, name, value.clone())
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)


class MetaNeXtStage(nn.Module):
    """A downsampling (norm, then a 2x2 convolution), which the first stage lacks, and the blocks that follow it.

    There is a block for each of ``drop_path_rates``; ``block_cfg`` are further arguments of :class:`MetaNeXtBlock`.

    Shape: (N, in_channels, H, W) to (N, out_channels, H // stride, W // stride).
    """

    def __init__(self, in_channels: int, out_channels: int, drop_path_rates: Sequence[float], stride: int,
                 downsample: bool, dilation: int, norm_cfg: dict, **block_cfg) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if downsample:
            # A stage that keeps its resolution convolves at the dilation of the stage before, "same"-padded as in timm.
            keeps_size = stride == 1
            self.downsample = nn.Sequential(
                build_norm(norm_cfg, in_channels),
                create_conv2d(
                    in_channels, out_channels, 2, stride=stride, bias=True,
                    dilation=2 if dilation > 2 and keeps_size else 1, padding='same' if keeps_size else 0))
        self.blocks = nn.Sequential(*(
            MetaNeXtBlock(out_channels, norm_cfg=norm_cfg, drop_path=rate, dilation=dilation, **block_cfg)
            for rate in drop_path_rates))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class MetaNeXtBase(BaseModule):
    """What :class:`MetaNeXt` and :class:`IsotropicMetaNeXt` share: a stem, parts, and a norm on each of the outputs.

    A subclass makes ``stem``, the list of parts and ``output_stride``, then calls :meth:`_add_output_norms`.

    Args:
        parts: what the outputs are counted in, ``stages`` or ``blocks``: the name of the module list.
        num_parts: how many there are, with those after the last output, which are not built.
        out_indices: parts whose maps are returned, counted from 0, or from the end by negative numbers.
        init_cfg: MMEngine's initialisation config; see :class:`MetaNeXt`.

    Raises:
        ValueError: if ``out_indices`` is empty, not in ascending order, or out of range, or ``init_cfg`` is a text.
    """

    def __init__(self, parts: str, num_parts: int, out_indices: Sequence[int], init_cfg) -> None:
        super().__init__(init_cfg)
        if isinstance(init_cfg, str):
            raise InputError(f"init_cfg={init_cfg!r}: give dict(type='Pretrained', checkpoint={init_cfg!r})")
        indices = tuple(out_indices) if isinstance(out_indices, Iterable) else ()
        indices = tuple(i + num_parts if i in range(-num_parts, 0) else i for i in indices)
        if not indices or not all(isinstance(i, Integral) and 0 <= i < num_parts for i in indices) or (
                list(indices) != sorted(set(indices))):
            raise InputError(f'out_indices={out_indices}: give {parts} in ascending order, each once, from 0 to '
                             f'{num_parts - 1}, or from the end by -1 to {-num_parts}')
        self.parts = parts
        self.out_indices: Tuple[int, ...] = indices
        self.num_built = indices[-1] + 1
        self.unbuilt_names = [f'{parts}.{i}' for i in range(self.num_built, num_parts)]
        self.unbuilt_names += [f'norm{i}' for i in range(num_parts) if i not in indices]

    def _add_output_norms(self, out_norm_cfg: Optional[dict], channels: Sequence[int]) -> None:
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm(out_norm_cfg, channels[i]))

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        if min(x.shape[-2:]) < self.output_stride:
            raise InputError(f'an image of {x.shape[-2]} x {x.shape[-1]} pixels (H x W) is too small: each side must '
                             f'be at least {self.output_stride}, the stride of the last output; resize or pad it')
        outs = []
        x = self.stem(x)
        for i, part in enumerate(getattr(self, self.parts)):
            x = part(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x))
        return tuple(outs)

    def init_weights(self) -> None:
        """Initialises by ``init_cfg``; a pretrained checkpoint must hold the complete trunk.

        What a checkpoint does not hold, such as the output norms, starts as it would without one.

        Raises:
            CheckpointError: see :func:`load_pretrained`; also if a ``Pretrained`` in ``init_cfg`` has other keys than
                ``checkpoint``, ``allow_partial``, and ``prefix`` and ``map_location``, which are not needed here.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg or {}]
        pretrained = [config for config in configs if _is_pretrained(config)]
        if not pretrained or self._is_init:
            super().init_weights()
            return
        others = [config for config in configs if config not in pretrained]
        if others or any(config.get('allow_partial') for config in pretrained):  # else all of it is loaded
            initialize(self, others or TRUNC_NORMAL)
        for config in pretrained:
            settings = {key: value for key, value in config.items() if key != 'type'}
            if not {'checkpoint'} <= settings.keys() <= {'checkpoint', 'allow_partial', 'prefix', 'map_location'}:
                raise CheckpointError('a Pretrained in init_cfg has checkpoint and may have allow_partial; '
                                      f'got {", ".join(settings) or "neither"}')
            load_pretrained(self, settings['checkpoint'], settings.get('allow_partial', False))
        self._is_init = True


def _is_pretrained(config: dict) -> bool:
    return type_name(config) in ('Pretrained', 'PretrainedInit')


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
        out_indices: stages whose maps are returned, counted from 0, or from the end by negative numbers.
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
            ``dict(type='Pretrained', checkpoint=FILE)`` loads a classifier's trunk, all of it or nothing; beside them
            ``allow_partial=True`` loads what fits. FILE as in :func:`mmseg_inceptionnext.checkpoints.load_source`.

    Shape: (N, in_channels, H, W) to a tuple of (N, dims[i], H / s, W / s) for i in ``out_indices``, where s is 4, 8,
    16, 32 without dilation; divisions round down at each stage.

    Raises:
        ValueError: for settings that do not fit together, and for images smaller than the last stride.
    """

    def __init__(self,
                 depths: Sequence[int],
                 dims: Sequence[int],
                 token_mixer: Union[dict, Sequence[dict]],
                 mlp_ratios: Union[float, Sequence[float]] = 4,
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
        for name, value, values in (('depths', depths, depths), ('dims', dims, [dims] if _is_count(dims) else dims)):
            if not isinstance(values, Iterable) or not all(map(_is_count, values)):
                raise InputError(f'{name}={value!r}: give a list of whole numbers from 1, one for each stage')
        num_stages = len(depths)
        super().__init__('stages', num_stages, out_indices, init_cfg)
        dilations = _checked_dilations(dilations or (1, ) * num_stages, num_stages)
        dims = _one_for_each_stage('dims', dims, num_stages)
        mlp_ratios = _one_for_each_stage('mlp_ratios', mlp_ratios, num_stages)
        token_mixers = _one_for_each_stage('token_mixer', token_mixer, num_stages)
        drop_path_rates = spread(drop_path_rate, sum(depths)).split(list(depths))

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, dims[0], PATCH_SIZE, stride=PATCH_SIZE), build_norm(norm_cfg, dims[0]))
        self.stages = nn.ModuleList()
        self.output_stride = PATCH_SIZE
        for i in range(self.num_built):
            stride = 2 if i > 0 and dilations[i] == 1 else 1
            self.output_stride *= stride
            self.stages.append(MetaNeXtStage(
                dims[max(i - 1, 0)], dims[i], drop_path_rates[i].tolist(), stride, downsample=i > 0,
                dilation=dilations[i], with_cp=with_cp, norm_cfg=norm_cfg, token_mixer=token_mixers[i],
                mlp_ratio=mlp_ratios[i], act_cfg=act_cfg, layer_scale_init_value=layer_scale_init_value))
        self._add_output_norms(out_norm_cfg, dims)

        if not -1 <= frozen_stages <= len(self.stages):
            raise InputError(f'frozen_stages={frozen_stages}: allowed are -1 (nothing), 0 (the stem) and '
                             f'1..{len(self.stages)} (the stem and that many stages)')
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> List[nn.Module]:
        return [] if self.frozen_stages < 0 else [self.stem, *self.stages[:self.frozen_stages]]

    def train(self, mode: bool = True) -> 'MetaNeXt':
        """Sets the mode; frozen modules, and with ``norm_eval`` all BatchNorms, stay in eval mode."""
        super().train(mode)
        norms = [m for m in self.modules() if isinstance(m, _BatchNorm)] if self.norm_eval else []
        for module in (*self._frozen_modules(), *norms):
            module.eval()
        return self


def _is_count(value) -> bool:
    return isinstance(value, Integral) and value > 0


def spread(drop_path_rate: float, depth: int) -> Tensor:
    """The stochastic depth of each of ``depth`` blocks, growing linearly from 0: a tensor on the CPU."""
    if not isinstance(drop_path_rate, Real) or not 0 <= drop_path_rate < 1:
        raise InputError(f'drop_path_rate={drop_path_rate!r}: allowed is from 0 to below 1')
    return torch.linspace(0, drop_path_rate, depth, device='cpu')


def _checked_dilations(dilations: Sequence[int], num_stages: int) -> Tuple[int, ...]:
    keeping = sum(d > 1 for d in dilations)
    expected = (1, ) * (num_stages - keeping) + tuple(2**(i + 1) for i in range(keeping))
    if tuple(dilations) != expected or keeping >= num_stages:
        raise InputError(f'dilations={tuple(dilations)}: give {num_stages} values, ones first, then doubling from the '
                         'first stage that keeps its resolution, such as (1, 1, 1, 2) for stride 16 or (1, 1, 2, 4) '
                         'for stride 8')
    return expected


def _one_for_each_stage(name: str, value, num_stages: int) -> list:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * num_stages
    if len(values) != num_stages:
        raise InputError(f'{name} has {len(values)} entries for {num_stages} stages: give one for each, or one for all')
    return values
