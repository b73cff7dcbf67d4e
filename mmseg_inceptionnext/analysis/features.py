"""Writes pictures of what a trained model looks at: Grad-CAM and effective receptive fields."""
import os.path as osp
import re
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import torch
from mmengine.utils import mkdir_or_exist
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.inputs import plan_outputs
from mmseg_inceptionnext.inference.overlay import class_share

from .grad_cam import NotPredictedError, check_grad_cam, draw_cam, grad_cam
from .receptive_field import device_of, draw_fields, fields_table, middle_square, random_inputs, receptive_fields
from .samples import padding

SIDE, NUM_RANDOM = 512, 8  # of the inputs for receptive fields: the largest side, in pixels, and how many random ones
SMALL = 64  # pixels


class Features(NamedTuple):
    """What was written.

    Attributes:
        written: paths of the pictures.
        table: text with the sizes of the receptive fields.
        failures: a sentence for each image that could not be drawn.
    """
    written: List[str]
    table: str
    failures: List[str]


def visualize_features(segmenter: Segmenter, inputs: Sequence[str], out_dir: str, stage: int = 4,
                       class_name: Optional[str] = None) -> Features:
    """Draws Grad-CAM over each image, ``NAME_stageN_CLASS.jpg``, and ``receptive_field.png`` for all stages.

    The receptive fields are means over the middles of the images, or over random inputs if there is no image.

    Args:
        segmenter: the trained model.
        inputs: image files, and folders, which are searched through.
        out_dir: folder for the pictures; made if it is not there.
        stage: of the backbone, from 1, for Grad-CAM.
        class_name: for Grad-CAM. Default: in each image the class with the largest share in the prediction.

    Raises:
        ValueError: if there is no such stage or class, before anything is written; if Grad-CAM cannot be had, see
            :func:`grad_cam`; see :func:`mmseg_inceptionnext.inference.inputs.plan_outputs` for the paths.
    """
    _check(segmenter, stage, class_name)
    if inputs:
        check_grad_cam(segmenter.model)
    mkdir_or_exist(out_dir)
    written, failures, squares = [], [], []
    for path, target in tqdm(plan_outputs(inputs, out_dir).items(), desc='Grad-CAM', unit='image', disable=not inputs):
        try:
            picture, name, x = _explain(segmenter, path, stage, class_name)
        except (ValueError, RuntimeError) as error:  # RuntimeError: out of memory
            failures.append(str(error) if str(error).startswith(path) else f'{path}: {error}')
            continue
        mkdir_or_exist(osp.dirname(target))
        name = re.sub(r'\W+', '-', name)  # such as "screen door, screen"
        written.append(f'{target}_stage{stage}_{name}.jpg')
        picture.save(written[-1], quality=92)
        squares.append(middle_square(x, SIDE))
    if inputs and not squares:
        return Features(written, '', failures)
    path, table = _draw_fields(segmenter, squares, out_dir)
    return Features([*written, path], table, failures)


@torch.no_grad()
def _check(segmenter: Segmenter, stage: int, class_name: Optional[str]) -> None:
    backbone = getattr(segmenter.model, 'backbone', None)
    if backbone is None:
        raise InputError(f'{type(segmenter.model).__name__} has no backbone, whose stages could be looked at')
    num_stages = len(backbone(next(random_inputs(SMALL, device_of(backbone)))))
    if not 1 <= stage <= num_stages:
        raise InputError(f'--stage {stage}: the backbone gives the maps of {num_stages} stages; choose 1 to '
                         f'{num_stages}')
    if class_name is not None and class_name not in segmenter.classes:
        raise InputError(f'--class {class_name}: the model does not know this class; its classes are '
                         f'{", ".join(segmenter.classes)}')


def network_input(segmenter: Segmenter, path: str) -> Tuple[Tensor, SegDataSample]:
    """What enters the network when it segments an image, (1, C, H, W), and the sample that tells how it was made."""
    data = segmenter.model.data_preprocessor(segmenter.backend.batch([segmenter.prepare(path).data]), False)
    return data['inputs'], data['data_samples'][0]


def _explain(segmenter: Segmenter, path: str, stage: int, class_name: Optional[str]
             ) -> Tuple[Image.Image, str, Tensor]:
    """The picture of one image, the name of its class, and the network's input."""
    result = segmenter(path)
    name = class_name or next(iter(class_share(result.mask, segmenter.classes)))
    class_id = list(segmenter.classes).index(name)
    inputs, sample = network_input(segmenter, path)
    try:
        cam = grad_cam(segmenter.model, inputs, class_id, stage - 1)
    except NotPredictedError as error:
        present = ', '.join(class_share(result.mask, segmenter.classes))
        raise InputError(f'{path}: no pixel is predicted as {name}, so there is nothing to explain; predicted are '
                         f'{present}') from error
    left, right, top, bottom = padding(sample)
    cam = cam[top:cam.shape[0] - bottom, left:cam.shape[1] - right]
    cam = cv2.resize(cam, result.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return draw_cam(result.image, cam, result.mask == class_id, name, stage), name, inputs


def _draw_fields(segmenter: Segmenter, squares: Sequence[Tensor], out_dir: str) -> Tuple[str, str]:
    backbone = segmenter.model.backbone
    if squares:
        side = min(min(square.shape[-2:]) for square in squares)
        inputs = [middle_square(square, side) for square in squares]
        source = '1 image' if len(squares) == 1 else f'{len(squares)} images'
    else:
        inputs = random_inputs(SIDE, device_of(backbone), NUM_RANDOM)
        source = f'{NUM_RANDOM} random inputs'
    fields = receptive_fields(backbone, inputs)
    path = osp.join(out_dir, 'receptive_field.png')
    draw_fields(fields, source, path)
    return path, fields_table(fields)
