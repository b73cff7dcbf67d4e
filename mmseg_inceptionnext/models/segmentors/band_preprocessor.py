"""The data preprocessor of images with other numbers of bands than one or three."""
from typing import Sequence

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS


@MODELS.register_module()
class BandDataPreProcessor(SegDataPreProcessor):
    """``SegDataPreProcessor`` for any number of bands.

    Args:
        mean, std: one number for each band, of the values as the loading step gives them.
        **kwargs: the other arguments of ``SegDataPreProcessor``.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs) -> None:
        super().__init__(mean=None, std=None, **kwargs)
        self._enable_normalize = True
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
