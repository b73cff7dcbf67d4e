"""Optimizers: fused steps, and layer-wise learning-rate decay."""
from typing import Dict, List, Optional

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import BaseOptimWrapper, DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from prettytable import PrettyTable
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import IsotropicMetaNeXt, MetaNeXt
from mmseg_inceptionnext.parts import class_of

FUSABLE = (Adam, AdamW)  # not SGD: its fused step moves the momentum on, or leaves it at random, when it is left out
CHOSEN = ('foreach', 'fused', 'capturable', 'differentiable')  # settings that say how a step is computed


def fuse_optimizer(cfg: Config) -> None:
    """Sets ``fused=True`` for the Adam or AdamW of a config that trains on a GPU and says nothing of how to compute.

    A fused step is quicker there, and can be left out without asking the host.
    """
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    known = class_of(optimizer, OPTIMIZERS) in FUSABLE
    # a runner of another type may share the parameters out, or take the optimizer from elsewhere
    if known and get_device() == 'cuda' and 'runner_type' not in cfg and not set(CHOSEN) & set(optimizer):
        optimizer.fused = True


def leaves_out_steps(optimizer: Optimizer) -> bool:
    """Whether a step changes nothing, step counts included, where ``optimizer.found_inf``, a float32 tensor, is 1."""
    return type(optimizer) in FUSABLE and all(group.get('fused') for group in optimizer.param_groups)


def keep_own_steps(wrapper: BaseOptimWrapper, state: dict) -> None:
    """Lets an optimizer go on computing its steps as it was set up to, when it loads the state of another.

    A state says how its steps were computed, and PyTorch would take that over: fused on a CPU, where that may not
    exist, or not fused any more. A fused step also takes moments to lie in memory as the parameters do, channels-last
    or not. Step counts go where the host can read them, unless the steps are counted on the device.

    Args:
        wrapper: holds the optimizer that will load; several are left as they are.
        state: a ``state_dict()``; changed.
    """
    optimizer = getattr(wrapper, 'optimizer', None)
    if not isinstance(optimizer, Optimizer) or 'param_groups' not in state:
        return
    own = {key: optimizer.defaults[key] for key in CHOSEN if key in optimizer.defaults}
    on_device = own.get('fused') or own.get('capturable')
    for group, saved in zip(optimizer.param_groups, state['param_groups']):
        saved.update(own)
        for parameter, index in zip(group['params'], saved['params']):
            values = state['state'].get(index, {})
            for key, value in values.items():
                if torch.is_tensor(value) and key == 'step':
                    values[key] = value if on_device else value.cpu()
                elif torch.is_tensor(value) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lets the learning rate fall from layer to layer, from the heads to the image (BEiT, appendix).

    The B blocks of a MetaNeXt, InceptionNeXt or IsotropicMetaNeXt are counted through all stages, frozen ones too.
    Layer 0 is the stem; layer k is the k-th block, k = 1 ... B, with the downsampling before it, if there is one; layer
    B + 1 is everything else: the norms on the outputs, the neck, the heads. The learning rate of a parameter in layer k
    is ``decay_rate ** (B + 1 - k)`` times what MMEngine's other settings give it. Weight decay is not touched.
    MMSegmentation's ``LearningRateDecayOptimizerConstructor`` puts several of ConvNeXt's blocks in a layer, so that its
    decay rates do not carry over.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer.lr`` and
            ``constructor='LayerDecayOptimWrapperConstructor'``.
        paramwise_cfg: ``decay_rate``, above 0 and at most 1, beside all settings of MMEngine's
            ``DefaultOptimWrapperConstructor``, such as ``flat_decay_mult`` and ``custom_keys``.

    Raises:
        ConfigError: if ``decay_rate`` or the learning rate is missing or out of range, or the backbone is another.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ConfigError(f'decay_rate={rate!r}: {type(self).__name__} needs a number above 0 and at most 1, such '
                              'as optim_wrapper.paramwise_cfg=dict(decay_rate=0.9)')
        foreign = [key for key in ('num_layers', 'decay_type') if key in self.paramwise_cfg]
        if foreign:
            raise ConfigError(f"{' and '.join(foreign)} in paramwise_cfg: {type(self).__name__} counts the model's own "
                              'blocks, each a layer; leave that out')
        if self.base_lr is None:
            raise ConfigError(f'{type(self).__name__} needs optim_wrapper.optimizer.lr, which is not set')

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Adds a parameter group for each parameter to ``params``; MMEngine calls it for the model and all inside."""
        super().add_params(params, module, prefix, **kwargs)
        if not prefix:  # the whole model, after all that is inside it
            self._scale(params, module)

    def _scale(self, params: List[dict], model: nn.Module) -> None:
        rate, layers = self.paramwise_cfg['decay_rate'], backbone_layers(getattr(model, 'backbone', None))
        layer_of = {id(p): k for k, parts in enumerate(layers) for part in parts.values() for p in part.parameters()}
        rows: Dict[tuple, int] = {}
        for group in params:
            parameter, = group['params']
            layer = layer_of.get(id(parameter), len(layers))
            group['lr'] = group.get('lr', self.base_lr) * rate**(len(layers) - layer)
            row = layer, group['lr'], group.get('weight_decay', self.base_wd or 0)
            rows[row] = rows.get(row, 0) + parameter.numel()
        names = [', '.join(name for name, part in parts.items() if list(part.parameters())) for parts in layers]
        table = PrettyTable(['layer', 'in the backbone', 'parameters', 'learning rate', 'weight decay'], align='r')
        table.align['in the backbone'] = 'l'
        for (layer, lr, decay), count in sorted(rows.items()):
            table.add_row([layer, [*names, 'the rest, and all outside'][layer], count, f'{lr:.4g}', f'{decay:g}'])
        print_log(f'layer-wise learning-rate decay of {rate:g}:\n{table}', logger='current')


def backbone_layers(backbone: Optional[nn.Module]) -> List[Dict[str, nn.Module]]:
    """The stem and the blocks of a backbone from the image upwards, each with the parts that are one layer, by name.

    Raises:
        ConfigError: if it is none of this package's backbones.
    """
    if isinstance(backbone, IsotropicMetaNeXt):
        blocks = [{f'blocks.{j}': block} for j, block in enumerate(backbone.blocks)]
    elif isinstance(backbone, MetaNeXt):
        blocks = []
        for i, stage in enumerate(backbone.stages):
            of_stage = [{f'stages.{i}.blocks.{j}': block} for j, block in enumerate(stage.blocks)]
            of_stage[0] = {f'stages.{i}.downsample': stage.downsample, **of_stage[0]}
            blocks += of_stage
    else:
        found = 'none' if backbone is None else type(backbone).__name__
        raise ConfigError(
            'LayerDecayOptimWrapperConstructor knows the layers of MetaNeXt, InceptionNeXt and IsotropicMetaNeXt; the '
            f"model's backbone is {found}. Take optim_wrapper.constructor out of the config (for ConvNeXt, BEiT and "
            "MAE there is MMSegmentation's LearningRateDecayOptimizerConstructor)")
    return [{'stem': backbone.stem}, *blocks]
