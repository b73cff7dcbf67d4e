"""Test-time augmentation that keeps one sum, whatever the number of views."""
from typing import List

from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor

from .memory_efficient_encoder_decoder import MemoryEfficientEncoderDecoder


@MODELS.register_module()
class RunningSumTTAModel(SegTTAModel):
    """SegTTAModel that adds up the views' probabilities as they come; the stock one keeps the logits of them all.

    Its predictions are the stock ones, ties aside. With ``return_logits=True`` in the ``test_cfg`` of the module they
    come with ``seg_logits``, the mean probabilities, (classes, H, W). A module other than
    :class:`MemoryEfficientEncoderDecoder` runs the stock way.
    """

    @property
    def keeps_one_sum(self) -> bool:
        """Whether it does not run the stock way."""
        return isinstance(self.module, MemoryEfficientEncoderDecoder) and self.module.has_stock_predict

    def test_step(self, data: dict) -> SampleList:
        """Predicts from all views of a batch of images.

        Args:
            data: what a ``TestTimeAug`` pipeline gives: ``inputs`` and ``data_samples``, each a list of views, each a
                list of images.

        Returns:
            The first view's data samples with ``pred_sem_seg``: (1, H, W).
        """
        if not self.keeps_one_sum:
            return super().test_step(data)
        module = self.module
        sums: List[Tensor] = []
        results: SampleList = []
        views = list(zip(data['inputs'], data['data_samples']))
        for inputs, data_samples in views:
            view = module.data_preprocessor(dict(inputs=inputs, data_samples=data_samples), False)
            for i, (size, tiles) in enumerate(module.logit_tiles(view['inputs'], view['data_samples'])):
                if len(sums) <= i:
                    sums.append(view['inputs'].new_zeros(*size, module.out_channels))
                    results.append(view['data_samples'][i])
                for rows, cols, logits in tiles:
                    sums[i][rows, cols] += logits.softmax(-1) if module.out_channels > 1 else logits.sigmoid()
                    del logits  # before the next ones are made
        for result, total in zip(results, sums):
            if module.out_channels > 1:
                classes = total.max(-1).indices
            else:
                classes = (total[..., 0] / len(views) > module.decode_head.threshold).to(total)
            result.pred_sem_seg = PixelData(data=classes)
            if (module.test_cfg or {}).get('return_logits'):
                result.seg_logits = PixelData(data=total.permute(2, 0, 1) / len(views))
        return results
