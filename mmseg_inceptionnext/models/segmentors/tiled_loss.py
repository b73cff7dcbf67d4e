"""The loss of a head from its own small logits, tile by tile: resized logits are never held at full size."""
from functools import lru_cache
from typing import List, Optional, Tuple

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from mmseg_inceptionnext.models.compat import autocast_type, once_differentiable
from mmseg_inceptionnext.models.device_plan import plan_of
from mmseg_inceptionnext.models.interpolation import (
    Block,
    add_transposed_columns,
    add_transposed_rows,
    parts,
    resample_columns,
    resample_rows,
    resizing,
)


def why_not_tiled(head: nn.Module) -> str:
    """What keeps a head's loss from being computed by :func:`tiled_loss`; empty if nothing does."""
    name = type(head).__name__
    if type(head).loss is not BaseDecodeHead.loss or type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat:
        return f'{name} has a loss of its own'
    if head.sampler is not None:
        return f'{name} samples pixels by {type(head.sampler).__name__}'
    if head.out_channels == 1:
        return f'{name} has one output channel'
    for loss in losses_of(head):
        if type(loss) is not CrossEntropyLoss or loss.use_sigmoid or loss.use_mask:
            return f'{name} has another loss than the softmax cross-entropy'
        if loss.reduction not in ('mean', 'sum'):
            return f'{name} has a loss with reduction={loss.reduction!r}'
    return ''


def tiled_loss(head: BaseDecodeHead, logits: Tensor, labels: Tensor) -> dict:
    """Equals ``head.loss_by_feat`` to rounding, in value and gradients.

    The gradient of the logits is found together with the loss, so nothing of a tile is kept for the backward pass. It
    is computed in float32, or in float64 for such logits, outside of autocast, and can be differentiated once. Nothing
    waits for the device.

    Args:
        head: one that :func:`why_not_tiled` has nothing against.
        logits: (N, classes, h, w), as the head gives them.
        labels: (N, H, W), int64.

    Returns:
        The losses by name, and ``acc_seg`` in percent, of shape (1,).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ignored = labels == head.ignore_index
    classes, valid = labels.masked_fill(ignored, 0), (~ignored).to(logits.dtype)
    losses, predicted = {}, None
    with torch.autocast(autocast_type(logits), enabled=False):
        for module in losses_of(head):
            weight = valid
            if module.class_weight is not None:
                weight = valid * _class_weight(tuple(module.class_weight), logits.dtype, logits.device)[classes]
            log_likelihood, predicted = _TiledCrossEntropy.apply(logits, classes, weight, head.align_corners)
            factor = -module.loss_weight
            if module.reduction == 'mean':  # over pixels, or with class weights over those of the labels
                by_weight = module.avg_non_ignore or module.class_weight is not None
                factor = factor / ((weight.sum() if by_weight else weight.numel()) + _EPS)
            loss = log_likelihood * factor
            losses[module.loss_name] = losses[module.loss_name] + loss if module.loss_name in losses else loss
        correct = (predicted == labels).sum() if head.ignore_index not in range(head.num_classes) else (
            (predicted == labels) & ~ignored).sum()
        losses['acc_seg'] = ((correct + _EPS) * 100. / (valid.sum() + _EPS)).reshape(1)
    return losses


_EPS = torch.finfo(torch.float32).eps  # MMSegmentation's guard against images without a label


def losses_of(head: BaseDecodeHead) -> list:
    """The modules of its losses."""
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _class_weight(values: Tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


class _TiledCrossEntropy(torch.autograd.Function):
    """The sum of weighted log likelihoods of resized logits, and the classes of the largest ones."""

    @staticmethod
    def forward(ctx, logits: Tensor, classes: Tensor, weight: Tensor, align_corners: bool) -> Tuple[Tensor, Tensor]:
        images = logits.permute(0, 2, 3, 1).contiguous()
        up = resizing(tuple(images.shape[1:3]), tuple(classes.shape[1:]), align_corners)
        grads = torch.zeros_like(images) if ctx.needs_input_grad[0] else None
        predicted, log_likelihood = torch.empty_like(classes), torch.empty_like(weight)
        tile_bytes = plan_of(images.device).tile_bytes
        tiles = up.blocks(images.shape[-1], images.dtype, images.device, tile_bytes)
        for part in parts(len(images), tile_bytes // (weight[0].numel() * images.shape[3] * images.element_size())):
            _cross_entropy(images[part], classes[part], weight[part], *tiles, predicted[part], log_likelihood[part],
                           None if grads is None else grads[part])
        if grads is not None:
            ctx.save_for_backward(grads.permute(0, 3, 1, 2))
        ctx.mark_non_differentiable(predicted)
        return (log_likelihood * weight).sum(), predicted

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _):
        grads, = ctx.saved_tensors
        return grads * -grad, None, None, None


def _cross_entropy(images: Tensor, classes: Tensor, weight: Tensor, row_blocks: List[Block], column_blocks: List[Block],
                   predicted: Tensor, log_likelihood: Tensor, grads: Optional[Tensor]) -> None:
    """Fills in the predicted classes, the log likelihood of ``classes``, and the gradients of (n, h, w, C) logits."""
    for cols in column_blocks:
        stretched = resample_columns(images, cols)
        shrunk = None if grads is None else torch.zeros_like(stretched)
        for rows in row_blocks:
            here = slice(None), rows.outputs, cols.outputs
            target = classes[here][..., None]
            tile = resample_rows(stretched, rows)
            if rows.matrix is None and cols.matrix is None:
                tile = tile.clone()  # of the logits themselves
            torch.max(tile, -1, out=(log_likelihood[here], predicted[here]))  # the former is filled in below
            torch.log_softmax(tile, -1, out=tile)
            likelihood = torch.gather(tile, -1, target, out=log_likelihood[here][..., None])
            if grads is not None:
                minus_grad = tile.exp_().scatter_(-1, target, likelihood.expm1()).mul_(weight[here][..., None])
                add_transposed_rows(shrunk, minus_grad, rows)
        if grads is not None:
            add_transposed_columns(grads, shrunk, cols)
