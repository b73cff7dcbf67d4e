"""Watches the loss: a step that would spoil the weights is left out, and a run that is lost stops."""
import json
import logging
import os.path as osp
from typing import Dict, Iterable, Optional

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from mmseg_inceptionnext.errors import ConfigError, NonFiniteLossError

from .optim import leaves_out_steps

MAY_HELP = "a lower learning rate, optim_wrapper.clip_grad=dict(max_norm=1), or --amp bf16 instead of fp16 may help"


class LossWatch(OptimWrapper):
    """Leaves out the step of a loss that is NaN or infinite, on all processes if it is so on one.

    With accumulated gradients this is the step of all their batches. A fused Adam or AdamW, and float16's scaling of
    the loss, leave it out on the GPU; for other optimizers the host waits for the loss before the step. The scale of a
    dynamic scaling falls then, as where gradients overflow.

    Attributes:
        lost: 1 if the loss of the last batch was not finite on some process, else 0; a tensor on its device.
        lost_here: the same of this process alone.
    """
    lost: Optional[Tensor] = None
    lost_here: Optional[Tensor] = None
    _left_out: Optional[Tensor] = None  # of all batches since the last step

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        self.lost_here = 1 - torch.isfinite(loss.detach()).all().float()
        self.lost = self.lost_here.clone()
        all_reduce(self.lost, 'max')
        self._left_out = self.lost if self._left_out is None else torch.maximum(self._left_out, self.lost)
        if self._scales:  # and looks for gradients that are NaN
            loss = loss * torch.ones_like(self.lost).masked_fill_(self.lost > 0, float('nan'))
        super().update_params(loss, *args, **kwargs)
        if self.should_update():
            self._left_out = None

    def step(self, **kwargs) -> None:
        by_flag = self._left_out is not None and not self._scales and leaves_out_steps(self.optimizer)
        raises = (self.clip_grad_kwargs or {}).get('error_if_nonfinite')
        if (raises or not (by_flag or self._scales)) and self._left_out:
            return
        if by_flag:
            self.optimizer.found_inf = self._left_out
        super().step(**kwargs)
        vars(self.optimizer).pop('found_inf', None)

    @property
    def _scales(self) -> bool:
        scaler = getattr(self, 'loss_scaler', None)
        return scaler is not None and scaler.is_enabled()


def watched(kind: type) -> type:
    """A class of optimizer wrappers with :class:`LossWatch`."""
    return kind if issubclass(kind, LossWatch) else type(f'Watched{kind.__name__}', (LossWatch, kind), {})


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Tells of each loss that :class:`LossWatch` found to be NaN or infinite, and stops the run if it stays so.

    Buffers, such as the statistics of BatchNorm, become again what they were before the batch. In the work dir
    ``nonfinite_iter_N_rankR.json`` has its file names and the terms of the loss, from each process whose loss it was.
    Steps that mixed precision leaves out because gradients overflow do not count. Weights that are not finite
    themselves stop the run at once, and no checkpoint takes them. Training registers this hook by itself.

    Args:
        patience: iterations in a row after which the run stops.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook takes the statistics into its average

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ConfigError(f'patience={patience}: give a number of iterations in a row, 1 or more')
        self.patience, self.in_a_row = patience, 0

    def before_train(self, runner: Runner) -> None:
        buffers = list(runner.model.buffers())  # by dtype: PyTorch copies those of one at once
        self._buffers = [[one for one in buffers if one.dtype == dtype] for dtype in {one.dtype for one in buffers}]
        self._kept = [[one.clone() for one in alike] for alike in self._buffers]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        for kept, buffers in zip(self._kept, self._buffers):
            torch._foreach_copy_(kept, buffers)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        wrapper = runner.optim_wrapper  # one of several optimizers, or of another runner, is not watched
        if getattr(wrapper, 'lost', None) is None or not wrapper.lost:  # MMEngine has just waited for it, to log it
            self.in_a_row = 0
            return
        self.in_a_row += 1
        for kept, buffers in zip(self._kept, self._buffers):
            torch._foreach_copy_(buffers, kept)
        number, terms = runner.iter + 1, {key: torch.as_tensor(value).item() for key, value in (outputs or {}).items()}
        text = ', '.join(f'{key}={value:.4g}' for key, value in terms.items())
        if wrapper.lost_here:
            self._report(runner, number, terms, text, data_batch)
        if self.in_a_row == 1:
            weights_lost = 1 - _all_finite(runner.model.parameters()).float()
            all_reduce(weights_lost, 'max')
            if weights_lost:
                raise NonFiniteLossError(_lost(f'before iteration {number}'))
        if self.in_a_row >= self.patience:
            raise NonFiniteLossError(
                f'the loss was not finite in {self.in_a_row} iterations in a row, up to {number}: {text}. No such step '
                f'has changed the weights. {runner.work_dir} has the files of each batch in '
                f'nonfinite_iter_N_rankR.json: look at those images and labels; {MAY_HELP}. Then go on with --resume')

    @staticmethod
    def _report(runner: Runner, number: int, terms: Dict[str, float], text: str, data_batch: Optional[dict]) -> None:
        path = osp.join(runner.work_dir, f'nonfinite_iter_{number}_rank{get_rank()}.json')
        report = dict(iter=number, loss_terms={key: str(value) for key, value in terms.items()}, files=[
            sample.metainfo.get('img_path', 'unknown') for sample in (data_batch or {}).get('data_samples', [])])
        with open(path, 'w') as file:
            json.dump(report, file, indent=2)
        print_log(f'the loss of iteration {number} is not finite ({text}); its step is left out, and {path} names '
                  'the batch', logger=runner.logger, level=logging.ERROR)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not _all_finite(checkpoint['state_dict'].values()):
            raise NonFiniteLossError(_lost(f'after iteration {checkpoint["meta"]["iter"]}') + '. This checkpoint was '
                                     'not written')


def _all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers of some tensors are finite: a bool on the device of the first, for which nothing waits."""
    flags = [torch.isfinite(tensor).all() for tensor in tensors]
    return torch.stack([flag.to(flags[0].device) for flag in flags]).all()


def _lost(when: str) -> str:
    return (f'the weights are not finite {when}: the gradients of a step were not, under a loss that was. Go on from '
            f'the newest checkpoint, which was written before that, with --resume; {MAY_HELP}')
