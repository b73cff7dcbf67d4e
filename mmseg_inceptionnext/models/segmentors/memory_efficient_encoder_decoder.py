"""EncoderDecoder that never holds its logits at full size: neither in prediction nor in training."""
import logging
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import OptSampleList, SampleList, add_prefix
from torch import Tensor, nn

from mmseg_inceptionnext.models.compat import is_compiling
from mmseg_inceptionnext.models.device_plan import InPlannedFormat
from mmseg_inceptionnext.models.interpolation import Resampling, resized, resizing, window

from .slide import slide_tiles
from .tiled_loss import losses_of, tiled_loss, why_not_tiled

Tile = Tuple[slice, slice, Tensor]  # rows, columns, logits (rows, columns, classes)


@MODELS.register_module()
class MemoryEfficientEncoderDecoder(InPlannedFormat, EncoderDecoder):
    """EncoderDecoder with the same arguments, parameters, losses and predictions, in a fraction of the memory.

    .. code:: text

     predict(): logit_tiles() -> _classes()
     logit_tiles(): _logits() -> Resampling.tiles(), or for sliding windows slide_tiles()
     loss(): _head_loss() -> tiled_loss()

    Prediction: stock MMSegmentation resizes the logits to the network's input, removes the padding, undoes a flip,
    resizes to the original size and takes the largest, holding all classes at every step. All but the last are linear
    and treat rows and columns apart, so here they are one pair of small matrices, applied tile by tile. The class map
    is the stock one, ties aside. ``seg_logits`` are not kept; with ``test_cfg=dict(return_logits=True)`` they are,
    in the stock way.

    Sliding windows (``mode='slide'``) also take ``batch_size``, the number of windows that run at once (default 1), and
    hold the logits of one row of windows at a time.

    Training: the cross-entropy of a head is computed tile by tile from the logits as the head gives them; see
    :func:`tiled_loss`. Other losses and pixel samplers run the stock way, and a line in the log says so.

    Moved to a device by ``to`` or ``cuda``, the model takes the memory format of its :class:`DevicePlan`. A head that
    cannot do with it, since it views maps as if they were contiguous, gets contiguous ones.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._reasons_told = set()
        self._is_contiguous = {}  # whether a head needs contiguous maps, once it is known

    def extract_feat(self, inputs: Tensor) -> List[Tensor]:
        """The maps of backbone and neck; images, (N, C, H, W), take the memory format of the device's plan."""
        return super().extract_feat(inputs.contiguous(memory_format=self._plan.memory_format))

    def encode_decode(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """Stock: images, (N, C, H, W), to logits (N, classes, H, W)."""
        return self._run(
            self.decode_head, self.decode_head.predict, self.extract_feat(inputs), batch_img_metas, self.test_cfg)

    def _forward(self, inputs: Tensor, data_samples: OptSampleList = None) -> Tensor:
        return self._run(self.decode_head, self.decode_head, self.extract_feat(inputs))

    def _run(self, head: nn.Module, call: Callable, maps: Sequence[Tensor], *others: Any) -> Any:
        """``call(maps, *others)`` of a head; with contiguous maps and weights if it makes views that need them."""
        if not is_compiling() and head not in self._is_contiguous and len(maps[0]) > 1:  # of one image no view fails
            kept = {name: x.clone() for name, x in head.named_buffers()} if head.training else {}
            try:
                result = call(maps, *others)
                self._is_contiguous[head] = False
                return result
            except RuntimeError as error:
                if 'view size is not compatible' not in str(error):
                    raise
            for name, statistics in kept.items():  # norms have run
                head.get_buffer(name).copy_(statistics)
            self._is_contiguous[head] = True
        if self._is_contiguous.get(head):
            head.to(memory_format=torch.contiguous_format)
            maps = [x.contiguous() for x in maps]
        return call(maps, *others)

    def predict(self, inputs: Tensor, data_samples: OptSampleList = None) -> SampleList:
        """Predicts classes at the original sizes of the images.

        Args:
            inputs: (N, C, H, W).
            data_samples: one for each image, with the metainfo of the test pipeline. Without them the classes are those
                at the size of ``inputs``.

        Returns:
            The data samples with ``pred_sem_seg``: (1, H, W), int64; for one output channel 0. and 1.
        """
        if (self.test_cfg or {}).get('return_logits') or not self.has_stock_predict:
            return super().predict(inputs, data_samples)
        results = data_samples or [SegDataSample() for _ in inputs]
        for sample, (size, tiles) in zip(results, self.logit_tiles(inputs, data_samples)):
            sample.pred_sem_seg = PixelData(data=self._classes(size, tiles, inputs))
        return results

    @property
    def has_stock_predict(self) -> bool:
        """Whether the decode head does nothing to its logits but to resize them."""
        head = type(self.decode_head)
        return head.predict is BaseDecodeHead.predict and head.predict_by_feat is BaseDecodeHead.predict_by_feat

    def logit_tiles(self, inputs: Tensor, data_samples: OptSampleList = None
                    ) -> Iterator[Tuple[Tuple[int, int], Iterator[Tile]]]:
        """The logits at the original size, in tiles: for each image its size and the tiles, which cover it once."""
        size = tuple(inputs.shape[2:])
        metas = [sample.metainfo for sample in data_samples] if data_samples else [None] * len(inputs)
        slides = (self.test_cfg or {}).get('mode', 'whole') == 'slide'
        logits = None if slides else self._logits(inputs)
        for i, meta in enumerate(metas):
            post = _postprocessing(size, meta, self.align_corners)
            if slides:
                tiles = slide_tiles(
                    self._logits, self.out_channels, inputs[i], post, self.test_cfg, self.align_corners)
            else:
                up = resizing(tuple(logits.shape[1:3]), size, self.align_corners)
                tiles = up.then(post).tiles(logits[i:i + 1], self._plan.tile_bytes)
            yield post.new_size, _of_one_image(tiles)

    def _logits(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, h, w, classes), at the size at which the head gives them; never half precision."""
        logits = self._forward(inputs).permute(0, 2, 3, 1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()

    def _classes(self, size: Tuple[int, int], tiles: Iterator[Tile], inputs: Tensor) -> Tensor:
        """(1, H, W)"""
        binary = self.out_channels == 1
        result = torch.empty(size, dtype=inputs.dtype if binary else torch.int64, device=inputs.device)
        for rows, cols, logits in tiles:
            if binary:
                result[rows, cols] = (logits[..., 0].sigmoid() > self.decode_head.threshold).to(result)
            else:
                result[rows, cols] = logits.max(-1).indices  # faster than argmax
            del logits  # before the next one is made
        return result[None]

    def _decode_head_forward_train(self, inputs: List[Tensor], data_samples: SampleList) -> dict:
        return add_prefix(self._head_loss(self.decode_head, inputs, data_samples), 'decode')

    def _auxiliary_head_forward_train(self, inputs: List[Tensor], data_samples: SampleList) -> dict:
        if not isinstance(self.auxiliary_head, nn.ModuleList):
            return add_prefix(self._head_loss(self.auxiliary_head, inputs, data_samples), 'aux')
        losses = {}
        for i, head in enumerate(self.auxiliary_head):
            losses.update(add_prefix(self._head_loss(head, inputs, data_samples), f'aux_{i}'))
        return losses

    def _head_loss(self, head: nn.Module, inputs: List[Tensor], data_samples: SampleList) -> dict:
        reason = why_not_tiled(head)
        if not reason:
            labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1)
            return tiled_loss(head, self._run(head, head, inputs), labels)
        if getattr(type(head), 'loss_by_feat', 0) is BaseDecodeHead.loss_by_feat and head.out_channels == 1 and all(
                (sample.gt_sem_seg.data == head.ignore_index).all() for sample in data_samples):
            nothing = self._run(head, head, inputs).sum() * 0.  # the stock loss wants the largest of the labels
            return {loss.loss_name: nothing for loss in losses_of(head)}
        if reason not in self._reasons_told:
            self._reasons_told.add(reason)
            print_log(f'{reason}: its loss is computed the stock way, from logits at full size', logger='current',
                      level=logging.WARNING)
        return self._run(head, head.loss, inputs, data_samples, self.train_cfg)


def _of_one_image(tiles: Iterator[Tile]) -> Iterator[Tile]:
    for rows, cols, tile in tiles:
        yield rows, cols, tile[0]
        del tile  # before the next one is made


def _postprocessing(size: Tuple[int, int], meta: Optional[dict], align_corners: bool) -> Resampling:
    """What stock MMSegmentation does to the logits at the size of the network's input: cut off the padding, undo the
    flip, resize to the original size. Without metainfo nothing."""
    meta = meta or {}
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    flip = meta.get('flip_direction') if meta.get('flip') else None
    if flip not in (None, 'horizontal', 'vertical'):
        raise ValueError(f'flip_direction={flip!r}: allowed are horizontal and vertical')
    (height, width), (new_height, new_width) = size, meta.get('ori_shape', size)[:2]
    y = window(height, top, height - bottom, flip == 'vertical')
    x = window(width, left, width - right, flip == 'horizontal')
    return Resampling(*(axis.then(resized(axis.new_size, new, align_corners))
                        for axis, new in ((y, new_height), (x, new_width))))
