"""Layer-wise learning-rate decay."""
from typing import Dict, List, Optional, Union

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from prettytable import PrettyTable
from torch import nn

from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import IsotropicMetaNeXt, MetaNeXt


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lets the learning rate fall from layer to layer, from the heads to the image (BEiT, appendix).

    The B blocks of a MetaNeXt, InceptionNeXt or IsotropicMetaNeXt are counted through all stages, frozen ones too:

    - layer 0 is the stem;
    - layer k is the k-th block, k = 1 ... B, together with the downsampling right before it, if there is one;
    - layer B + 1 is everything else: the norms on the outputs, the neck, the heads.

    The learning rate of a parameter in layer k is ``decay_rate ** (B + 1 - k)`` times what MMEngine's other settings
    give it. So everything outside the trunk keeps its rate, and the last block has ``decay_rate`` times the base rate.
    Weight decay is not touched. MMSegmentation's ``LearningRateDecayOptimizerConstructor`` puts several of ConvNeXt's
    blocks in a layer, so that its decay rates do not carry over.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer.lr``.
        paramwise_cfg: ``decay_rate``, above 0 and at most 1, beside all settings of MMEngine's
            ``DefaultOptimWrapperConstructor``, such as ``flat_decay_mult`` and ``custom_keys``.

    Raises:
        ConfigError: if ``decay_rate`` or the learning rate is missing or out of range, or the backbone is another.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper', optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
        ...     constructor='LayerDecayOptimWrapperConstructor',
        ...     paramwise_cfg=dict(decay_rate=0.9, flat_decay_mult=0.))
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

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: Optional[Union[int, float]] = None) -> None:
        """Adds a parameter group for each parameter to ``params``; MMEngine calls it for the model and all inside."""
        super().add_params(params, module, prefix, is_dcn_module)
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
