"""Watches the loss, and stops a run that is lost."""
import json
import logging
import os
import os.path as osp
from typing import Dict, Iterable, List

import torch
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from .errors import NonFiniteLossError


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Leaves out the step of a loss that is NaN or infinite, writes down what led to it, and stops if it stays so.

    Weights, optimizer and BatchNorm statistics stay as they were before the batch. In the work dir
    ``nonfinite_iter_N_rankR.json`` tells of such an iteration N, from each process whose loss it was: the batch's
    file names and the terms of the loss. The checkpoint ``nonfinite_iter_N.pth`` holds the weights before it; only
    the newest is kept, and that of the first such iteration in a row, as the others have the same weights. Steps
    that mixed precision leaves out because its gradients overflow do not count: their loss is finite.

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
        self._left_out = self._own = self._summed = False
        self._saved = ''

    def before_train(self, runner: Runner) -> None:
        self._statistics = list(runner.model.buffers())
        self._kept = [buffer.clone() for buffer in self._statistics]
        wrapper = runner.optim_wrapper
        update = wrapper.update_params

        def update_if_finite(loss: Tensor, *args, **kwargs) -> None:
            if self._is_finite(loss):
                self._summed = True
                update(loss, *args, **kwargs)
            else:
                wrapper._inner_count += 1  # as its backward pass would
                if self._summed and wrapper.should_update():  # the other batches of this step
                    wrapper.step()
                    wrapper.zero_grad()
            if wrapper.should_update():
                self._summed = False

        wrapper.update_params = update_if_finite

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        for kept, buffer in zip(self._kept, self._statistics):
            kept.copy_(buffer)

    def _is_finite(self, loss: Tensor) -> bool:
        """Whether it is so on all processes, which must do the same."""
        self._own = not _all_finite([loss.detach()])
        self._left_out = _anywhere(self._own, loss.device)
        return not self._left_out

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self._left_out:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        for kept, buffer in zip(self._kept, self._statistics):
            buffer.copy_(kept)
        number = runner.iter + 1
        terms = {key: float(value) for key, value in (outputs or {}).items()}
        if self._own:
            self._report(runner, number, terms, _files(data_batch))
        if self.in_a_row == 1:
            weights = list(runner.model.parameters())
            if _anywhere(not _all_finite(weights), weights[0].device):
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


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is so on any process."""
    anywhere = torch.tensor(float(flag), device=device)
    all_reduce(anywhere, 'max')
    return bool(anywhere)


def _lost(when: str) -> str:
    return (f'the weights are not finite {when}: the gradients of a step were not, under a loss that was. Go on from '
            'the newest checkpoint, which was written before that, with --resume; a lower learning rate, '
            'optim_wrapper.clip_grad=dict(max_norm=1), or --amp bf16 in the place of fp16 may help')


def _files(data_batch: dict) -> List[str]:
    return [sample.metainfo.get('img_path', 'unknown') for sample in (data_batch or {}).get('data_samples', [])]


def _text(terms: Dict[str, float]) -> str:
    return ', '.join(f'{key}={value:.4g}' for key, value in terms.items())
