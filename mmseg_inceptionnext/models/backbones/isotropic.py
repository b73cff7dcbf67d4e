"""MetaNeXt with one size of map throughout, as a plain vision transformer has."""
from typing import Optional, Sequence

from mmseg.registry import MODELS
from torch import nn

from .metanext import TRUNC_NORMAL, MetaNeXtBase, MetaNeXtBlock, spread


@MODELS.register_module()
class IsotropicMetaNeXt(MetaNeXtBase):
    """Blocks on one map at 1/16 of the image's size (InceptionNeXt, table 5).

    All outputs have the same size; MMSegmentation's ``Feature2Pyramid`` neck turns four of them into a pyramid. As in
    ConvNeXt's isotropic models no norm follows the patches' convolution. Parameter names are ``stem.0``,
    ``blocks.B.{token_mixer,norm,mlp,gamma}`` and, for the norms on the outputs, ``norm{i}``. Blocks after the last
    output are not built.

    Args:
        token_mixer: config of the token mixer.
        depth: number of blocks.
        dim: number of channels.
        patch_size: side and stride of the first convolution, in pixels.
        mlp_ratio: hidden width of the MLP in units of ``dim``.
        in_channels: channels of the image.
        out_indices: blocks whose maps are returned, counted from 0.
        drop_path_rate, layer_scale_init_value, norm_cfg, act_cfg, out_norm_cfg, with_cp, init_cfg: as in
            :class:`MetaNeXt`.

    Shape: (N, in_channels, H, W) to one map of (N, dim, H / patch_size, W / patch_size), rounded down, for each of
    ``out_indices``.

    Raises:
        ValueError: for ``out_indices`` that do not fit, and for images smaller than a patch.
    """

    def __init__(self, token_mixer: dict, depth: int = 18, dim: int = 384, patch_size: int = 16, mlp_ratio: float = 4,
                 in_channels: int = 3, out_indices: Sequence[int] = (4, 8, 13, 17), drop_path_rate: float = 0.,
                 layer_scale_init_value: float = 1e-6, norm_cfg: dict = dict(type='SyncBN'),
                 act_cfg: dict = dict(type='GELU'), out_norm_cfg: Optional[dict] = dict(type='SyncBN'),
                 with_cp: bool = False, init_cfg=TRUNC_NORMAL) -> None:
        super().__init__('blocks', depth, out_indices, init_cfg)
        self.output_stride = patch_size
        self.stem = nn.Sequential(nn.Conv2d(in_channels, dim, patch_size, stride=patch_size))
        self.blocks = nn.ModuleList(
            MetaNeXtBlock(
                dim, token_mixer, mlp_ratio, norm_cfg, act_cfg, drop_path=rate,
                layer_scale_init_value=layer_scale_init_value, with_cp=with_cp)
            for rate in spread(drop_path_rate, depth).tolist()[:self.num_built])
        self._add_output_norms(out_norm_cfg, [dim] * depth)
