"""A segmentor as one function of an image, in operations that ONNX has."""
import copy
from typing import List

import torch
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference.onnx_backend import NOT_FINITE
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.models.fuse import convolve_by_winograd
from mmseg_inceptionnext.models.winograd import WinogradConv2d

INPUT = 'uint8, RGB, N x 3 x H x W, from 0 to 255'


class ExportableSegmentor(nn.Module):
    """A copy of a segmentor, with the normalisation of its input.

    Args:
        model: a segmentor that predicts whole images.
        output: ``logits`` as the head gives them, or ``classes`` at the size of the input.
        fused: fold the norms first.
        winograd: convolve by Winograd's method where that pays in ONNX Runtime.

    Shape: (N, 3, H, W), uint8, RGB, to (N, classes, h, w), float32, or to (N, H, W), uint8, int32 above 255 classes.
        An image whose logits are not finite becomes one class id that there is not, see ``NOT_FINITE``.

    Raises:
        InputError: if what the segmentor does cannot be written so.
    """

    def __init__(self, model: EncoderDecoder, output: str = 'logits', fused: bool = True, winograd: bool = True
                 ) -> None:
        super().__init__()
        _check(model)
        self.output = output
        self.normalise = Normalisation(model)
        model = fuse(model) if fused else copy.deepcopy(model).eval()
        if fused:
            convolve_by_winograd(model, WinogradConv2d.pays_in_onnx if winograd else lambda *_: False)
        _replace(model)
        self.backbone = model.backbone
        self.neck = model.neck if model.with_neck else nn.Identity()
        *coarse, self.head = heads_of(model)
        self.coarse_heads = nn.ModuleList(coarse)

    def forward(self, image: Tensor) -> Tensor:
        maps, logits = self.neck(self.backbone(self.normalise(image))), ()
        for head in (*self.coarse_heads, self.head):
            logits = head(maps, *logits),
        logits, = logits
        if self.output == 'logits':
            return logits
        not_finite = logits.isfinite().float().amin((1, 2, 3), keepdim=True)[:, 0] == 0
        logits = F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=self.head.align_corners)
        name = 'uint8' if self.head.out_channels < 256 else 'int32'
        if logits.shape[1] == 1:
            classes = logits[:, 0].sigmoid() > self.head.threshold
        else:
            classes = logits.argmax(1)
        return classes.to(getattr(torch, name)).masked_fill(not_finite, NOT_FINITE[name])

    @staticmethod
    @torch.no_grad()
    def logits_of(model: EncoderDecoder, image: Tensor) -> Tensor:
        """The logits of the segmentor itself, for the same input."""
        return model(Normalisation(model)(image))


class Normalisation(nn.Module):
    """What the ``data_preprocessor`` of a segmentor does to images: (N, 3, H, W), uint8, RGB, to float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        preprocessor = model.data_preprocessor
        # Images are read as BGR, which the preprocessor may turn; that setting has two names in the two families.
        turns = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False))
        self.takes_bgr = not turns
        for name, default in (('mean', torch.zeros), ('std', torch.ones)):
            self.register_buffer(name, getattr(preprocessor, name, default(3, 1, 1)).float().cpu())

    def forward(self, image: Tensor) -> Tensor:
        x = image.float()
        return ((x.flip(1) if self.takes_bgr else x) - self.mean) / self.std


class AveragePool(nn.Module):
    """``AdaptiveAvgPool2d`` as two products with matrices that are made from the traced sizes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._matrix(length).to(x) for length in x.shape[2:])
        return torch.matmul(torch.matmul(rows, x), columns.t())

    def _matrix(self, length: Tensor) -> Tensor:
        """(size, length): the mean over each of the parts, which may overlap."""
        i, j = torch.arange(self.size)[:, None], torch.arange(length)
        first = torch.div(i * length, self.size, rounding_mode='floor')
        end = torch.div((i + 1) * length + self.size - 1, self.size, rounding_mode='floor')
        return torch.logical_and(j >= first, j < end).float() / (end - first).float()


def heads_of(model: nn.Module) -> List[nn.Module]:
    """The decode heads of a segmentor, of which each but the first takes the logits of the one before it."""
    return list(model.decode_head) if isinstance(model, CascadeEncoderDecoder) else [model.decode_head]


def _check(model: nn.Module) -> None:
    if not isinstance(model, EncoderDecoder) or any(isinstance(head, nn.ModuleList) for head in heads_of(model)):
        raise InputError(f'{type(model).__name__}: an EncoderDecoder with one decode head, or a CascadeEncoderDecoder, '
                         'can be exported')
    head = type(heads_of(model)[-1])
    if (head.predict not in (BaseDecodeHead.predict, BaseCascadeDecodeHead.predict)
            or head.predict_by_feat is not BaseDecodeHead.predict_by_feat):
        raise InputError(f'{head.__name__} does more to its logits than to resize them, which is not exported; heads '
                         'that predict as BaseDecodeHead does can be')
    if (model.test_cfg or {}).get('mode', 'whole') != 'whole':
        raise InputError("the config predicts by sliding windows, and an ONNX file takes whole images; if the model is "
                         "good at that, give a config with model = dict(test_cfg=dict(mode='whole'))")
    if model.data_preprocessor.test_cfg:
        raise InputError('the data_preprocessor pads in its test_cfg, which is not exported; put '
                         "dict(type='ResizeToMultiple', size_divisor=32) into the test pipeline in its place")


def _replace(module: nn.Module) -> None:
    """Puts modules that trace with free sizes in the place of those that do not."""
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
            setattr(module, name, AveragePool(child.output_size))
        elif isinstance(child, Upsample) and child.scale_factor and not child.size:
            setattr(module, name, nn.Upsample(
                scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners))
        else:
            _replace(child)
