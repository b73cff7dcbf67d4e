"""timm's backbones with a norm on each output, to compare with on equal terms."""
from typing import Optional, Tuple

import timm
from mmseg.models.backbones import TIMMBackbone
from mmseg.registry import MODELS
from torch import Tensor

from .metanext import build_norm


@MODELS.register_module()
class NormedTIMMBackbone(TIMMBackbone):
    """MMSegmentation's TIMMBackbone with a new norm on each output, ``norm0`` ... ``norm3``.

    Building it never downloads; ``init_weights``, which a training calls, does.

    Args:
        model_name: timm's name of the network, with the tag of its weights, such as ``convnext_tiny.fb_in1k``.
        out_norm_cfg: config of the norms, None for none. ConvNeXt's authors use LN, PoolFormer's GN with one group.
        pretrained: start from timm's weights of that tag.
        **kwargs: further arguments of ``timm.create_model``, such as ``drop_path_rate`` or ``out_indices``.

    Shape: (N, 3, H, W) to one map for each of timm's outputs.
    """

    def __init__(self, model_name: str, out_norm_cfg: Optional[dict] = dict(type='LN', eps=1e-6),
                 pretrained: bool = False, **kwargs) -> None:
        super().__init__(model_name, features_only=True, pretrained=False, **kwargs)
        self.model_name, self.pretrained = model_name, pretrained
        for i, channels in enumerate(self.timm_model.feature_info.channels()):
            self.add_module(f'norm{i}', build_norm(out_norm_cfg, channels))

    def init_weights(self) -> None:
        """Keeps timm's own initialisation, or loads timm's weights."""
        if self.pretrained:
            out_indices = self.timm_model.feature_info.out_indices
            source = timm.create_model(
                self.model_name, pretrained=True, features_only=True, out_indices=out_indices,
                in_chans=next(self.timm_model.parameters()).shape[1])
            self.timm_model.load_state_dict(source.state_dict())
        self._is_init = True

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        return tuple(getattr(self, f'norm{i}')(out) for i, out in enumerate(super().forward(x)))
