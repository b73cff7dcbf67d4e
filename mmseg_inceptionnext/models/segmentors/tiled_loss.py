"""The loss of a head from its own small logits, tile by tile: resized logits are never held at full size."""
from typing import Optional, Tuple

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from ..interpolation import apply_tile, apply_tile_transposed, resizing


def why_not_tiled(head: nn.Module) -> str:
    """What keeps a head's loss from being computed by :func:`tiled_loss`; empty if nothing does."""
    name = type(head).__name__
    if type(head).loss is not BaseDecodeHead.loss or type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat:
        return f'{name} has a loss of its own'
    if head.sampler is not None:
        return f'{name} samples pixels by {type(head.sampler).__name__}'
    if head.out_channels == 1:
        return f'{name} has one output channel'
    for loss in _losses(head):
        if type(loss) is not CrossEntropyLoss or loss.use_sigmoid or loss.use_mask:
            return f'{name} has another loss than the softmax cross-entropy'
        if loss.reduction not in ('mean', 'sum'):
            return f'{name} has a loss with reduction={loss.reduction!r}'
    return ''


def tiled_loss(head: BaseDecodeHead, logits: Tensor, labels: Tensor) -> dict:
    """Equals ``head.loss_by_feat`` to rounding, in value and gradients.

    The gradient of the logits is found together with the loss, so nothing of a tile is kept for the backward pass.

    Args:
        head: one that :func:`why_not_tiled` has nothing against.
        logits: (N, classes, h, w), as the head gives them.
        labels: (N, H, W), int64.

    Returns:
        The losses by name, and ``acc_seg`` in percent, of shape (1,).
    """
    losses, correct = {}, None
    for module in _losses(head):
        class_weight = None if module.class_weight is None else logits.new_tensor(module.class_weight)
        total, correct = _TiledCrossEntropy.apply(
            logits, labels, class_weight, head.ignore_index, head.align_corners)
        loss = module.loss_weight * total
        if module.reduction == 'mean':
            loss = loss / (_average_factor(module, class_weight, labels, head.ignore_index) + _EPS)
        losses[module.loss_name] = losses.get(module.loss_name, 0) + loss
    valid = (labels != head.ignore_index).sum()
    losses['acc_seg'] = ((correct + _EPS) * (100. / (valid + _EPS))).reshape(1)
    return losses


_EPS = torch.finfo(torch.float32).eps  # MMSegmentation's guard against images without a label


def _losses(head: BaseDecodeHead) -> list:
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def _average_factor(module: CrossEntropyLoss, class_weight: Optional[Tensor], labels: Tensor, ignore_index: int):
    """What MMSegmentation divides by: pixels, or with class weights the sum of those of the labels."""
    labelled = labels[labels != ignore_index]
    if class_weight is not None:
        return class_weight[labelled].sum()
    return labelled.numel() if module.avg_non_ignore else labels.numel()


class _TiledCrossEntropy(torch.autograd.Function):
    """The summed cross-entropy of resized logits, and how many pixels are right."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, class_weight: Optional[Tensor], ignore_index: int,
                align_corners: bool) -> Tuple[Tensor, Tensor]:
        images = logits.permute(0, 2, 3, 1).to(torch.promote_types(logits.dtype, torch.float32))
        up = resizing(tuple(images.shape[1:3]), tuple(labels.shape[1:]), align_corners)
        grads = torch.zeros_like(images) if ctx.needs_input_grad[0] else None
        total = images.new_zeros((), dtype=torch.float64)
        correct = labels.new_zeros(())
        for rows, cols in up.tiles(images):
            for i, image in enumerate(images):
                target = labels[i, rows.outputs, cols.outputs]
                tile = apply_tile(image, rows, cols)
                correct += (tile.max(-1).indices == target).sum()  # an ignored label is no class
                loss, tile_grad = _cross_entropy(tile, target, class_weight, ignore_index)
                total += loss
                if grads is not None:
                    grads[i, rows.inputs, cols.inputs] += apply_tile_transposed(tile_grad, rows, cols)
        if grads is not None:
            ctx.save_for_backward(grads.permute(0, 3, 1, 2).to(logits.dtype))
        ctx.mark_non_differentiable(correct)
        return total.to(images.dtype), correct

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        grads, = ctx.saved_tensors
        return grads * grad, None, None, None, None


def _cross_entropy(logits: Tensor, labels: Tensor, class_weight: Optional[Tensor], ignore_index: int
                   ) -> Tuple[Tensor, Tensor]:
    """The summed loss of (H, W, classes) logits, and its gradient."""
    ignored = labels == ignore_index
    classes = labels.masked_fill(ignored, 0)[..., None]
    weight = torch.ones_like(logits[..., :1]) if class_weight is None else class_weight.to(logits)[classes]
    weight = weight.masked_fill(ignored[..., None], 0)
    log_softmax = logits.log_softmax(-1)
    loss = -(log_softmax.gather(-1, classes) * weight).sum()
    grad = log_softmax.exp_().mul_(weight)
    return loss, grad.scatter_add_(-1, classes, -weight)
