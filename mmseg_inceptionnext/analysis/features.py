"""Grad-CAM of a trained model, through the library grad-cam."""
import os.path as osp
import re
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmengine.utils import mkdir_or_exist
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from tqdm import tqdm

from mmseg_inceptionnext.errors import InputError, UserError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.inputs import plan_outputs

from .samples import padding

OPACITY = 0.55  # of the colours over the image
DPI = 100


def visualize_features(segmenter: Segmenter, inputs: Sequence[str], out_dir: str, stage: int = 4,
                       class_name: Optional[str] = None) -> Tuple[List[str], List[str]]:
    """Draws Grad-CAM over each image, ``NAME_stageN_CLASS.jpg``.

    Args:
        segmenter: the trained model.
        inputs: see :func:`mmseg_inceptionnext.inference.inputs.plan_outputs`, as for ``out_dir``.
        out_dir: folder for the pictures; made if it is not there.
        stage: of the backbone, from 1.
        class_name: what is looked for. Default: in each image the class with the largest share in the prediction.

    Returns:
        The paths of the pictures, and a sentence for each image that could not be drawn.

    Raises:
        InputError: before anything is written, if there is no such class, or see :func:`check_grad_cam`.
    """
    check_grad_cam(segmenter.model, stage)
    if class_name is not None and class_name not in segmenter.classes:
        raise InputError(f'--class {class_name}: the model does not know this class; its classes are '
                         f'{", ".join(segmenter.classes)}')
    written, failures = [], []
    for path, target in tqdm(plan_outputs(inputs, out_dir).items(), desc='Grad-CAM', unit='image'):
        try:
            written.append(_explain(segmenter, path, target, stage, class_name))
        except UserError as error:
            failures.append(str(error) if str(error).startswith(path) else f'{path}: {error}')
    return written, failures


def check_grad_cam(model: nn.Module, stage: int) -> None:
    """Says why :func:`grad_cam` cannot be had for a stage, from 1, of a model.

    Raises:
        InputError: if the library is missing; if the model is anything but a backbone with this stage, perhaps a neck,
            and one decode head with a channel for each class.
    """
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError as error:
        raise InputError(f'Grad-CAM needs the library grad-cam: pip install grad-cam ({error})') from error
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, BaseDecodeHead) or head.out_channels < 2:
        raise InputError('Grad-CAM is for models with one decode head that has a channel for each class; that of this '
                         f'{type(model).__name__} is {type(head).__name__}')
    with torch.no_grad():
        num_stages = len(model.backbone(next(model.parameters()).new_zeros(1, 3, 64, 64)))
    if not 1 <= stage <= num_stages:
        raise InputError(f'--stage {stage}: the backbone gives the maps of {num_stages} stages, from 1')


def _explain(segmenter: Segmenter, path: str, target: str, stage: int, class_name: Optional[str]) -> str:
    """Draws one image, and returns the picture's path."""
    result = segmenter(path)
    present = list(result.share())
    name = class_name or present[0]
    class_id = list(segmenter.classes).index(name)
    predicted = result.mask == class_id
    inputs, sample = network_input(segmenter, path)
    cam = grad_cam(segmenter.model, inputs, class_id, stage - 1)
    if cam is None:
        raise InputError(f'{path}: no pixel is predicted as {name}, so there is nothing to explain; predicted are '
                         f'{", ".join(present)}')
    left, right, top, bottom = padding(sample)
    cam = cv2.resize(cam[top:cam.shape[0] - bottom, left:cam.shape[1] - right], result.image.shape[1::-1])
    picture = f'{target}_stage{stage}_' + re.sub(r'\W+', '-', name) + '.jpg'  # such as "screen door, screen"
    mkdir_or_exist(osp.dirname(picture))
    draw_cam(result.image, cam, predicted, f'Grad-CAM of stage {stage} for the class {name}', picture)
    return picture


def network_input(segmenter: Segmenter, path: str) -> Tuple[Tensor, SegDataSample]:
    """What enters the network when it segments an image, (1, C, H, W), and the sample that tells how it was made."""
    data = segmenter.model.data_preprocessor(segmenter.backend.batch([segmenter.prepare(path).data]), False)
    return data['inputs'], data['data_samples'][0]


class _Tapped(nn.Module):
    """(N, C, H, W) to logits at the size at which the head gives them; one output of the backbone passes ``tap``."""

    def __init__(self, model: nn.Module, stage: int) -> None:
        super().__init__()
        self.model, self.stage, self.tap = model, stage, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = list(self.model.backbone(x))
        features[self.stage] = self.tap(features[self.stage])
        return self.model.decode_head(self.model.neck(features) if self.model.with_neck else features)


def grad_cam(model: nn.Module, inputs: Tensor, class_id: int, stage: int) -> Optional[np.ndarray]:
    """What in a stage's map speaks for a class: Grad-CAM of the sum of the class's logits where it is predicted.

    The channels of the map are added up, each weighted by the mean of its gradient, and what is negative is set to 0
    (Selvaraju et al., 2017, arXiv:1610.02391; over the predicted pixels as in Vinogradova et al., 2020,
    arXiv:2002.11434).

    Args:
        model: an ``EncoderDecoder`` in evaluation mode.
        inputs: a normalised image, (1, C, H, W).
        class_id: of the class.
        stage: of the backbone, from 0.

    Returns:
        H x W, float32, the largest value 1, unless all are 0; None if the class is predicted nowhere.
    """
    from pytorch_grad_cam import GradCAM
    tapped, found = _Tapped(model, stage), []

    def logit_where_predicted(logits: Tensor) -> Tensor:
        predicted = logits.argmax(0) == class_id
        found.append(bool(predicted.any()))
        return (logits[class_id] * predicted).sum()

    with torch.enable_grad(), GradCAM(tapped, [tapped.tap]) as cam:
        result = cam(inputs.detach().requires_grad_(), [logit_where_predicted])[0]
    model.zero_grad(set_to_none=True)
    return result if found[0] else None


def draw_cam(image: np.ndarray, cam: np.ndarray, predicted: np.ndarray, title: str, path: str) -> None:
    """Paints a map, H x W from 0 to 1, over its image, H x W x 3, with a white line around the predicted pixels."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(image.shape[1] / DPI + 2, image.shape[0] / DPI + 1), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    axes.imshow(image)
    colors = axes.imshow(cam, cmap='turbo', vmin=0, vmax=1, alpha=OPACITY)
    if predicted.min() < predicted.max():
        axes.contour(predicted, [0.5], colors='white', linewidths=1)
    axes.set_title(f'{title}\n(white line: predicted, {100 * predicted.mean():.1f} %)', fontsize='small')
    axes.set_axis_off()
    figure.colorbar(colors, label='1: speaks most for it')
    figure.savefig(path)
