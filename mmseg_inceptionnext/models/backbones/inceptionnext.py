"""InceptionNeXt: MetaNeXt with the Inception depthwise convolution, in the published sizes."""
from typing import Optional, Union

from mmseg.registry import MODELS

from .metanext import MetaNeXt


@MODELS.register_module()
class InceptionNeXt(MetaNeXt):
    """InceptionNeXt (`CVPR 2024 <https://arxiv.org/abs/2303.16900>`_, table 3) as a segmentation backbone.

    Args:
        arch: ``'a'``/``'atto'``, ``'t'``/``'tiny'``, ``'s'``/``'small'``, ``'b'``/``'base'``, or a dict with ``depths``
            and ``dims`` and, if they differ from the tiny model's, ``band_kernel_size``, ``branch_ratio`` and
            ``mlp_ratios``.
        token_mixer: settings of :class:`InceptionDWConv2d` that differ from the arch's, such as ``with_square=False``.
        **kwargs: every other argument of :class:`MetaNeXt` (``in_channels``, ``out_indices``, ``drop_path_rate``,
            ``layer_scale_init_value``, ``norm_cfg``, ``act_cfg``, ``out_norm_cfg``, ``frozen_stages``, ``norm_eval``,
            ``with_cp``, ``dilations``, ``init_cfg``).

    Shape: (N, 3, H, W) to four maps with ``dims`` channels at strides 4, 8, 16 and 32.

    Raises:
        ValueError: if ``arch`` is not one of the above.

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
    short_names = {name[0]: name for name in arch_settings}

    def __init__(self, arch: Union[str, dict] = 'tiny', token_mixer: Optional[dict] = None, **kwargs) -> None:
        settings = self._settings_of(arch)
        mixer = dict(
            type='InceptionDWConv2d', band_kernel_size=settings['band_kernel_size'],
            branch_ratio=settings['branch_ratio'])
        super().__init__(
            settings['depths'], settings['dims'], {**mixer, **(token_mixer or {})}, mlp_ratios=settings['mlp_ratios'],
            **kwargs)

    @classmethod
    def _settings_of(cls, arch: Union[str, dict]) -> dict:
        defaults = dict(band_kernel_size=11, branch_ratio=0.125, mlp_ratios=(4, 4, 4, 3))
        if isinstance(arch, dict):
            allowed = {'depths', 'dims', *defaults}
            if not {'depths', 'dims'} <= arch.keys() <= allowed:
                raise ValueError(f'arch as a dict needs depths and dims and may have {", ".join(defaults)}; '
                                 f'got {", ".join(arch) or "nothing"}')
            return {**defaults, **arch}
        name = cls.short_names.get(arch, arch)
        if name not in cls.arch_settings:
            allowed = ', '.join(f"'{short}' or '{name}'" for short, name in cls.short_names.items())
            raise ValueError(f"arch={arch!r} is not known; use {allowed}, or a dict with depths and dims")
        return {**defaults, **cls.arch_settings[name]}
