"""MMEngine's runner, also for several processes on a CPU."""
import itertools
import logging
import os
from contextlib import contextmanager
from datetime import timedelta
from typing import Iterator, Optional

from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed, nn

from mmseg_inceptionnext.errors import CheckpointError, ConfigError, LostWorkerError
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

NO_GPU = ('no GPU: the processes talk by gloo, and SyncBN is reverted to BatchNorm, whose statistics are those of one '
          'process')
_numbers = itertools.count(1)


@RUNNERS.register_module()
class CPURunner(Runner):
    """Runner for processes that torchrun started on a machine without an accelerator.

    MMEngine gives every process a GPU. Here they talk by gloo, and SyncBN, which needs GPUs, is reverted to BatchNorm:
    each process then normalises by its own images. One process alone behaves as under ``Runner``. As there,
    ``env_cfg.dist_cfg.timeout`` is the time in seconds after which a process that waits for the others gives up, half
    an hour by default.
    """

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not distributed.is_initialized():
            start_gloo(env_cfg.get('dist_cfg', {}).get('timeout'))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        if self.distributed:
            print_log(NO_GPU, logger=self.logger, level=logging.WARNING)
            model = without_sync_bn(model)
            if model_wrapper_cfg is None:
                model_wrapper_cfg = dict(
                    type='MMDistributedDataParallel', broadcast_buffers=False,
                    find_unused_parameters=self.cfg.get('find_unused_parameters', False))
            model_wrapper_cfg = dict(model_wrapper_cfg, device_ids=None)
        return super().wrap_model(model_wrapper_cfg, model)


def start_gloo(timeout: Optional[float] = None) -> None:
    """Lets the processes of a launcher talk on CPUs; ``timeout`` in seconds."""
    settings = dict(timeout=timedelta(seconds=timeout)) if timeout else {}  # PyTorch 2.1 takes no None
    distributed.init_process_group('gloo', **settings)


def build_runner(cfg) -> Runner:
    """Builds the runner that ``runner_type`` of the config names; by default MMEngine's own, which needs a GPU for each
    process when there are several, or :class:`CPURunner` where there is none."""
    if cfg.get('visualizer'):  # MMEngine would give a second run of this process that of the same name, with its folder
        cfg.visualizer.name = f'visualizer_{next(_numbers)}'
    device = get_device()
    if device == 'cuda':
        _set_up_for_gpu(cfg)
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        cpu_processes = cfg.get('launcher') == 'pytorch' and device == 'cpu'
        runner = (CPURunner if cpu_processes else Runner).from_cfg(cfg)
    _explain_loading(runner)
    if device == 'cuda':
        for module in runner.model.modules():  # also that of a model that averages views
            if isinstance(module, BaseDataPreprocessor):  # MMSegmentation's takes none of the settings of this class
                module._non_blocking = True
    return runner


def _explain_loading(runner: Runner) -> None:
    """Makes one error, with a sentence, of whatever a checkpoint raises when a runner loads it or resumes from it."""
    load = runner.load_or_resume

    def load_or_resume() -> None:
        try:
            load()
        except (CheckpointError, ConfigError):
            raise
        except Exception as error:  # a checkpoint of garbage can raise anything, wherever its parts are loaded
            text = (str(error).strip().splitlines() or [''])[0]
            raise unusable(runner._load_from, f'{type(error).__name__}: {text:.160}', runner._resume) from error

    runner.load_or_resume = load_or_resume


def unusable(source: str, reason: str, resuming: bool = True) -> CheckpointError:
    """The error of a checkpoint that holds weights, and something with which no run can begin or go on."""
    if not resuming:
        return CheckpointError(f'{source} cannot be loaded: {reason}')
    return CheckpointError(
        f'{source} cannot be resumed from: {reason}. Give another one with --cfg-options load_from=FILE beside '
        '--resume, or leave out --resume to start from the weights of load_from=FILE')


@contextmanager
def lost_worker_explained(split: str) -> Iterator[None]:
    """Gives the error of a data loader whose process died a class and a sentence; ``split`` is ``train`` or ``test``.

    Raises:
        LostWorkerError: if one died.
    """
    try:
        yield
    except RuntimeError as error:  # the only sign is PyTorch's text
        text = str(error).strip().splitlines() or ['']
        if not text[0].startswith('DataLoader worker (pid'):
            raise
        goes_on = '; --resume goes on from the last checkpoint' if split == 'train' else ''
        raise LostWorkerError(
            f'{text[0].rstrip(". ")}: a process that loads images died, most likely because memory ran out. Use fewer '
            f'with --cfg-options {split}_dataloader.num_workers=N, or a smaller {split}_dataloader.batch_size'
            f'{goes_on}') from error


def _set_up_for_gpu(cfg) -> None:
    """Loads batches into memory that a GPU copies from by itself, and gives cuBLAS what it needs to repeat itself."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict):
            loader.setdefault('pin_memory', True)
    if cfg.get('randomness', {}).get('deterministic'):  # read at the first product, where PyTorch raises without it
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')


def end_processes() -> None:
    """Waits for all processes that a launcher started, and ends their communication; alone, nothing.

    A thread of gloo may otherwise outlive the interpreter, and abort the process when all is done
    (pytorch/pytorch#179291).
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
