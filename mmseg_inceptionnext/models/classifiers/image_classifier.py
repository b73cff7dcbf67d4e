"""A backbone with the classifier that its published weights were trained with."""
from typing import Dict, List, Optional, Tuple, Union

import torch
from mmengine.model import BaseModel, initialize
from mmseg.registry import MODELS
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models.backbones.metanext import TRUNC_NORMAL, MetaNeXtBase
from mmseg_inceptionnext.models.backbones.pretrained import load_classifier
from mmseg_inceptionnext.models.device_plan import InPlannedFormat

EPS = 1e-6  # of the LayerNorm in each published classifier


class MlpClassifierHead(nn.Module):
    """InceptionNeXt's: a hidden layer three times as wide, GELU, LayerNorm, dropout, a linear layer.

    Shape: (N, in_channels) to (N, num_classes).
    """

    def __init__(self, in_channels: int, num_classes: int, dropout_ratio: float, mlp_ratio: float = 3) -> None:
        super().__init__()
        hidden_channels = int(mlp_ratio * in_channels)
        self.fc1 = nn.Linear(in_channels, hidden_channels)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(hidden_channels, EPS)
        self.drop = nn.Dropout(dropout_ratio)
        self.fc2 = nn.Linear(hidden_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(self.norm(self.act(self.fc1(x)))))


class LinearClassifierHead(nn.Module):
    """ConvNeXt's and the isotropic models': LayerNorm, dropout, a linear layer; names as in timm's ConvNeXt.

    Shape: (N, in_channels) to (N, num_classes).
    """

    def __init__(self, in_channels: int, num_classes: int, dropout_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, EPS)
        self.drop = nn.Dropout(dropout_ratio)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(x)))


HEADS = dict(mlp=MlpClassifierHead, linear=LinearClassifierHead)


@MODELS.register_module()
class ImageClassifier(InPlannedFormat, BaseModel):
    """A MetaNeXt that names what an image shows: the average of the last map, through a head.

    It has the parts of its backbone as its own, so that the names of its parameters are the published ones, ``stem``,
    ``stages`` and ``head``: checkpoints of the authors and of timm load with ``strict=True``, and one of this model
    loads into the backbone of a segmentor. Moved to a device it takes the memory format of its :class:`DevicePlan`.

    Args:
        backbone: config of :class:`InceptionNeXt`, :class:`MetaNeXt` or :class:`IsotropicMetaNeXt`; its last map alone
            is computed, without a norm on it.
        head: ``'mlp'`` or ``'linear'``, see :class:`MlpClassifierHead` and :class:`LinearClassifierHead`.
        num_classes: number of classes.
        dropout_ratio: share of the features that are dropped in the head.
        data_preprocessor: config of :class:`ClassifierDataPreprocessor`, its default.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` loads a whole classifier, head included, or nothing. For
            the trunk alone, as with other classes, the backbone has an ``init_cfg`` of its own. Default: as the
            authors: truncated normal, std 0.02, biases zero.

    Shape: (N, in_channels, H, W) to logits of (N, num_classes).

    Raises:
        ValueError: if there is no such head; and what the backbone raises.
    """

    def __init__(self, backbone: dict, head: str = 'mlp', num_classes: int = 1000, dropout_ratio: float = 0.,
                 data_preprocessor: Optional[dict] = None, init_cfg: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor or dict(type='ClassifierDataPreprocessor'), init_cfg)
        if head not in HEADS:
            raise InputError(f'head={head!r}: allowed are {", ".join(HEADS)}')
        built = MODELS.build(dict(backbone, out_norm_cfg=None))
        self._backbone: Tuple[MetaNeXtBase] = (built, )  # no module of this one: its parts are
        built.out_indices = built.out_indices[-1:]
        for name in ('stem', built.parts):
            self.add_module(name, getattr(built, name))
        self.head = HEADS[head](built.out_channels[-1], num_classes, dropout_ratio)
        self.num_classes = num_classes
        self.soft_loss = SoftTargetCrossEntropy()

    @property
    def backbone(self) -> MetaNeXtBase:
        return self._backbone[0]

    def train(self, mode: bool = True) -> 'ImageClassifier':
        super().train(mode)
        self.backbone.train(mode)  # which keeps frozen parts as they are
        return self

    def init_weights(self) -> None:
        """Initialises by ``init_cfg``, or else the backbone by its own and the head as published.

        Raises:
            CheckpointError: as :meth:`MetaNeXtBase.init_weights`.
        """
        if self._is_init:
            return
        if self.init_cfg:
            load_classifier(self, self.init_cfg)
        else:
            self.backbone.init_weights()
            initialize(self.head, dict(TRUNC_NORMAL, layer='Linear'))
        self._is_init = True

    def forward(self, inputs: Tensor, data_samples: Optional[Tensor] = None, mode: str = 'tensor'
                ) -> Union[Tensor, Dict[str, Tensor], List[dict]]:
        """Logits, losses or predictions.

        Args:
            inputs: images, normalised, (N, in_channels, H, W).
            data_samples: of each image its class, (N, ), or a share of each class, (N, num_classes).
            mode: ``tensor`` for logits, ``loss`` for losses to sum, ``predict`` for a dict an image with ``scores``,
                the probability of each class, and ``label``, its class.
        """
        logits = self.head(self.backbone(inputs)[-1].mean((2, 3)))
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            soft = data_samples.dim() > 1
            return dict(loss=self.soft_loss(logits, data_samples) if soft else F.cross_entropy(logits, data_samples))
        labels = [None] * len(inputs) if data_samples is None else data_samples.tolist()
        return [dict(scores=scores, label=label) for scores, label in zip(torch.softmax(logits, 1), labels)]
