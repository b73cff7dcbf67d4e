"""InceptionNeXt: MetaNeXt with the Inception depthwise convolution, in the published sizes."""
from typing import Optional, Sequence, Union

from mmseg.registry import MODELS

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.parts import type_name

from .metanext import TRUNC_NORMAL, MetaNeXt


@MODELS.register_module()
class InceptionNeXt(MetaNeXt):
    """InceptionNeXt (`CVPR 2024 <https://arxiv.org/abs/2303.16900>`_, table 3) as a segmentation backbone.

    Args:
        arch: ``'a'``/``'atto'``, ``'t'``/``'tiny'``, ``'s'``/``'small'``, ``'b'``/``'base'``, or a dict with ``depths``
            and ``dims`` and, if they differ from the tiny model's, ``band_kernel_size``, ``branch_ratio`` and
            ``mlp_ratios``.
        token_mixer: settings of :class:`InceptionDWConv2d` that differ from the arch's, such as
            ``dict(with_square=False)`` or ``dict(square_kernel_size=5)``; or another token mixer, by its ``type`` and
            all its settings.
        in_channels, out_indices, drop_path_rate, layer_scale_init_value, norm_cfg, act_cfg, out_norm_cfg,
            frozen_stages, norm_eval, with_cp, dilations, init_cfg: as in :class:`MetaNeXt`.

    Shape: (N, 3, H, W) to four maps with ``dims`` channels at strides 4, 8, 16 and 32.

    Raises:
        ValueError: if ``arch`` is not one of the above; else as :class:`MetaNeXt`.

    Example:
        >>> backbone = InceptionNeXt('tiny').eval()
        >>> [tuple(y.shape) for y in backbone(torch.zeros(1, 3, 64, 96))]
        [(1, 96, 16, 24), (1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]
    """

    # Atto's widths are those of the authors' code and checkpoint; the paper's table prints 40, 90, 180, 320.
    arch_settings = {
        'atto': dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), band_kernel_size=9, branch_ratio=0.25),
        'tiny': dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
        'small': dict(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
        'base': dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
    }
    defaults = dict(band_kernel_size=11, branch_ratio=0.125, mlp_ratios=(4, 4, 4, 3))
    short_names = {name[0]: name for name in arch_settings}

    def __init__(self,
                 arch: Union[str, dict] = 'tiny',
                 token_mixer: Optional[dict] = None,
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
        settings = self._settings_of(arch)
        mixer = dict(type='mmseg.InceptionDWConv2d', band_kernel_size=settings.pop('band_kernel_size'),
                     branch_ratio=settings.pop('branch_ratio'))
        token_mixer = dict(token_mixer or {})
        if type_name({**mixer, **token_mixer}) == type_name(mixer):
            token_mixer = {**mixer, **token_mixer}
        super().__init__(
            **settings, token_mixer=token_mixer, in_channels=in_channels, out_indices=out_indices,
            drop_path_rate=drop_path_rate, layer_scale_init_value=layer_scale_init_value, norm_cfg=norm_cfg,
            act_cfg=act_cfg, out_norm_cfg=out_norm_cfg, frozen_stages=frozen_stages, norm_eval=norm_eval,
            with_cp=with_cp, dilations=dilations, init_cfg=init_cfg)

    @classmethod
    def _settings_of(cls, arch: Union[str, dict]) -> dict:
        if isinstance(arch, dict):
            if not {'depths', 'dims'} <= arch.keys() <= {'depths', 'dims', *cls.defaults}:
                raise InputError(f'arch as a dict needs depths and dims and may have {", ".join(cls.defaults)}; '
                                 f'got {", ".join(arch) or "nothing"}')
            return {**cls.defaults, **arch}
        name = cls.short_names.get(arch, arch) if isinstance(arch, str) else arch
        if not isinstance(name, str) or name not in cls.arch_settings:
            allowed = ', '.join(f"'{short}' or '{name}'" for short, name in cls.short_names.items())
            raise InputError(f"arch={arch!r} is not known; use {allowed}, or a dict with depths and dims")
        return {**cls.defaults, **cls.arch_settings[name]}
