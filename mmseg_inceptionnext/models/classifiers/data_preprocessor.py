"""Mixes the images of a batch with each other, and their labels with them."""
from typing import Optional

from mmengine.model import BaseDataPreprocessor
from mmseg.registry import MODELS
from timm.data import Mixup

from mmseg_inceptionnext.errors import ConfigError


@MODELS.register_module()
class ClassifierDataPreprocessor(BaseDataPreprocessor):
    """Brings a batch to the model's device and, in training, mixes it by timm's Mixup and CutMix.

    In training labels become what the loss is to predict: of shape (N, num_classes), smoothed and mixed as the images.

    Args:
        mixup: arguments of :class:`timm.data.Mixup`, ``num_classes`` among them; ``prob=0`` smooths labels only. None
            leaves class indices as they are.
        non_blocking: as in MMEngine.
    """

    def __init__(self, mixup: Optional[dict] = None, non_blocking: bool = True) -> None:
        super().__init__(non_blocking)
        self.mixup = Mixup(**mixup) if mixup else None

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        if training and self.mixup is not None:
            if len(data['inputs']) % 2:
                raise ConfigError(f'a batch of {len(data["inputs"])} images cannot be mixed in pairs: set '
                                  'train_dataloader.batch_size to an even number')
            # clones: Mixup works in place, on what a caller may look at again
            data['inputs'], data['data_samples'] = self.mixup(data['inputs'].clone(), data['data_samples'])
        return data
