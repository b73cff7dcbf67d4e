"""Watches the loss, and stops a run that is lost."""
import json
import logging
import os
import os.path as osp
from collections import defaultdict
from typing import Callable, Dict, Iterable, List

import torch
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from mmseg_inceptionnext.errors import NonFiniteLossError

from .fused import leaves_out_steps


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Leaves out the step of a loss that is NaN or infinite, writes down what led to it, and stops if it stays so.

    Weights, optimizer and BatchNorm statistics stay as they were before the batch. In the work dir
    ``nonfinite_iter_N_rankR.json`` tells of such an iteration N, from each process whose loss it was: the batch's
    file names and the terms of the loss. The checkpoint ``nonfinite_iter_N.pth`` holds the weights before it; only
    the newest is kept, and that of the first such iteration in a row, as the others have the same weights. Steps
    that mixed precision leaves out because its gradients overflow do not count: their loss is finite.

    A fused Adam or AdamW, and float16's scaling of the loss, leave the step out on the GPU: the host waits for it once
    in an iteration, where MMEngine does to log the loss. The scale of a dynamic scaling falls then, as where gradients
    overflow. For other optimizers, and where gradients are accumulated, the host waits before the backward pass too.

    Weights that are not finite themselves, after gradients that were not under a loss that was, stop the run at once,
    and no checkpoint takes them. Training registers this hook by itself.

    Args:
        patience: iterations in a row after which the run stops.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook takes the statistics into its average

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f'patience={patience}: give the number of iterations in a row after which to stop, 1 or '
                             'more')
        self.patience, self.in_a_row = patience, 0
        self._own = self._anywhere = None
        self._summed = False
        self._saved = ''

    def before_train(self, runner: Runner) -> None:
        self._statistics = _by_kind(runner.model.buffers())
        self._kept = [[buffer.clone() for buffer in alike] for alike in self._statistics]
        wrapper = runner.optim_wrapper
        leave_out = _way_to_leave_out(wrapper)
        self._update = wrapper.update_params

        def update_if_finite(loss: Tensor, *args, **kwargs) -> None:
            self._look_at(loss)
            leave_out(self, wrapper, loss, *args, **kwargs)

        wrapper.update_params = update_if_finite

    def after_train(self, runner: Runner) -> None:
        vars(runner.optim_wrapper).pop('update_params', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self._anywhere = None
        for kept, buffers in zip(self._kept, self._statistics):
            torch._foreach_copy_(kept, buffers)

    def _look_at(self, loss: Tensor) -> None:
        """Finds out on the device whether the loss is finite, here and on all processes, which must do the same."""
        self._own = 1 - torch.isfinite(loss.detach()).all().float()
        self._anywhere = self._own.clone()
        all_reduce(self._anywhere, 'max')

    def _by_optimizer(self, wrapper: OptimWrapper, loss: Tensor, *args, **kwargs) -> None:
        wrapper.optimizer.found_inf = self._anywhere
        self._update(loss, *args, **kwargs)
        vars(wrapper.optimizer).pop('found_inf', None)

    def _by_scaler(self, wrapper: OptimWrapper, loss: Tensor, *args, **kwargs) -> None:
        """Makes the gradients NaN, which the scaler of the loss looks for."""
        factor = torch.ones_like(self._anywhere).masked_fill_(self._anywhere > 0, float('nan'))
        self._update(loss * factor, *args, **kwargs)

    def _by_host(self, wrapper: OptimWrapper, loss: Tensor, *args, **kwargs) -> None:
        """Waits for the loss, and does not run backward from one that is not finite."""
        if not self._anywhere:
            self._summed = True
            self._update(loss, *args, **kwargs)
        else:
            wrapper._inner_count += 1  # as its backward pass would
            if self._summed and wrapper.should_update():  # the other batches of this step
                wrapper.step()
                wrapper.zero_grad()
        if wrapper.should_update():
            self._summed = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._anywhere is None or not self._anywhere:  # MMEngine has just waited for the loss, to log it
            self.in_a_row = 0
            return
        self.in_a_row += 1
        for kept, buffers in zip(self._kept, self._statistics):
            torch._foreach_copy_(buffers, kept)
        number = runner.iter + 1
        terms = {key: float(value) for key, value in (outputs or {}).items()}
        if self._own:
            self._report(runner, number, terms, _files(data_batch))
        if self.in_a_row == 1:
            weights = list(runner.model.parameters())
            lost = (~_all_finite(weights)).float()
            all_reduce(lost, 'max')
            if lost:
                raise NonFiniteLossError(_lost(f'before iteration {number}'))
            self._save(runner, number)
        if self.in_a_row >= self.patience:
            raise NonFiniteLossError(
                f'the loss was not finite in {self.in_a_row} iterations in a row, up to {number}: {_text(terms)}. '
                f'{runner.work_dir} has the files of each batch in nonfinite_iter_N_rankR.json, and in {self._saved} '
                'the weights, which no such step has changed. Look at those images and labels; a lower learning rate, '
                'optim_wrapper.clip_grad=dict(max_norm=1), or --amp bf16 in the place of fp16 may help. Then go on '
                'with --resume')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not _all_finite(checkpoint['state_dict'].values()):
            raise NonFiniteLossError(_lost(f'after iteration {checkpoint["meta"]["iter"]}') + '. This checkpoint was '
                                     'not written')

    def _save(self, runner: Runner, number: int) -> None:
        previous, self._saved = self._saved, f'nonfinite_iter_{number}.pth'
        runner.save_checkpoint(runner.work_dir, self._saved, by_epoch=False, backend_args=dict(backend='atomic'))
        if previous and is_main_process():
            os.remove(osp.join(runner.work_dir, previous))

    def _report(self, runner: Runner, number: int, terms: Dict[str, float], files: List[str]) -> None:
        path = osp.join(runner.work_dir, f'nonfinite_iter_{number}_rank{get_rank()}.json')
        with open(path, 'w') as file:
            json.dump(dict(iter=number, files=files, loss_terms={k: str(v) for k, v in terms.items()}), file, indent=2)
        print_log(f'the loss of iteration {number} is not finite ({_text(terms)}); its step is left out, and {path} '
                  'names the batch', logger=runner.logger, level=logging.ERROR)


def _way_to_leave_out(wrapper: OptimWrapper) -> Callable:
    """How the step of a loss that is not finite is left out: on the device, if the optimizer or the scaler of the loss
    does it there and no other batch adds to the gradients."""
    optimizer = getattr(wrapper, 'optimizer', None)
    accumulates = getattr(wrapper, '_accumulative_counts', 1) > 1
    raises = (getattr(wrapper, 'clip_grad_kwargs', None) or {}).get('error_if_nonfinite')
    if optimizer is None or accumulates or raises:
        return NonFiniteLossHook._by_host
    fused = any(group.get('fused') for group in optimizer.param_groups)
    if getattr(wrapper, 'loss_scaler', None) and (not fused or leaves_out_steps(optimizer)):
        return NonFiniteLossHook._by_scaler
    return NonFiniteLossHook._by_optimizer if leaves_out_steps(optimizer) else NonFiniteLossHook._by_host


def _by_kind(tensors: Iterable[Tensor]) -> List[List[Tensor]]:
    """In lists of the same dtype and device, each of which PyTorch copies at once."""
    kinds = defaultdict(list)
    for tensor in tensors:
        kinds[tensor.dtype, tensor.device].append(tensor)
    return list(kinds.values())


def _all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers of some tensors are finite: a bool on the device of the first, for which nothing waits."""
    flags = [torch.isfinite(tensor).all() for tensor in tensors]
    if not flags:  # a process other than the first has no state_dict when weights are shared out
        return torch.ones((), dtype=torch.bool)
    return torch.stack([flag.to(flags[0].device) for flag in flags]).all()


def _lost(when: str) -> str:
    return (f'the weights are not finite {when}: the gradients of a step were not, under a loss that was. Go on from '
            'the newest checkpoint, which was written before that, with --resume; a lower learning rate, '
            'optim_wrapper.clip_grad=dict(max_norm=1), or --amp bf16 in the place of fp16 may help')


def _files(data_batch: dict) -> List[str]:
    return [sample.metainfo.get('img_path', 'unknown') for sample in (data_batch or {}).get('data_samples', [])]


def _text(terms: Dict[str, float]) -> str:
    return ', '.join(f'{key}={value:.4g}' for key, value in terms.items())
