"""What the backbones here share: norms on the outputs, and weights that load whole or not at all."""
from typing import Optional, Sequence, Tuple

from mmengine.model import BaseModule, PretrainedInit, initialize
from torch import Tensor, nn

from mmseg_inceptionnext.errors import CheckpointError

from .norms import build_norm
from .pretrained import load_pretrained

# Cut at 5 std: at the default cut of +-2, which is 100 std, the single-precision sampling of PyTorch draws about one
# weight in 17 million at the cut itself, and one weight of -2 among values of 0.02 is a bad start.
TRUNC_NORMAL = dict(type='TruncNormal', layer='Conv2d', std=0.02, a=-0.1, b=0.1, bias=0.)


class MetaNeXtBase(BaseModule):
    """A stem, parts of blocks, and a norm on each of the outputs: ``norm{i}`` for i in ``out_indices``.

    Args:
        parts: what the outputs are counted in, ``stages`` or ``blocks``: the name of the module list.
        num_parts: how many there are, with those after the last output, which are not built.
        out_indices: parts whose maps are returned, counted from 0.
        init_cfg: MMEngine's initialisation config; see :class:`MetaNeXt`.

    Raises:
        ValueError: if ``out_indices`` is empty, not in ascending order, or out of range.
    """

    def __init__(self, parts: str, num_parts: int, out_indices: Sequence[int], init_cfg) -> None:
        super().__init__(init_cfg)
        indices = tuple(out_indices)
        if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_parts:
            raise ValueError(f'out_indices={out_indices}: give {parts} in ascending order, each once, from 0 to '
                             f'{num_parts - 1}')
        self.out_indices: Tuple[int, ...] = indices
        self.num_built = indices[-1] + 1
        self.unbuilt_names = [f'{parts}.{i}' for i in range(self.num_built, num_parts)]
        self.unbuilt_names += [f'norm{i}' for i in range(num_parts) if i not in indices]

    def _add_output_norms(self, out_norm_cfg: Optional[dict], channels: Sequence[int]) -> None:
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm(out_norm_cfg, channels[i]) if out_norm_cfg else nn.Identity())

    def _check_size(self, x: Tensor) -> None:
        if min(x.shape[-2:]) < self.output_stride:
            raise ValueError(f'an image of {x.shape[-2]} x {x.shape[-1]} pixels (H x W) is too small: each side must '
                             f'be at least {self.output_stride}, the stride of the last output; resize or pad it')

    def init_weights(self) -> None:
        """Initialises by ``init_cfg``; a pretrained checkpoint must hold the whole trunk.

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
    kind = config.get('type')
    return kind is PretrainedInit or str(kind).split('.')[-1] in ('Pretrained', 'PretrainedInit')
