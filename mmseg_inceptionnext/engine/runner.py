"""MMEngine's runner, also for several processes on a CPU."""
import itertools
import os
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from inspect import isclass
from typing import Iterator, Optional

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger, print_log
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from mmseg.registry import LOOPS, OPTIM_WRAPPERS
from torch import distributed, nn

from mmseg_inceptionnext.errors import CheckpointError, ConfigError, LostWorkerError
from mmseg_inceptionnext.models.sync_bn import sync_bn_on_cpus
from mmseg_inceptionnext.parts import SPLITS, class_of

from . import console
from .check import built_from, check_custom_keys
from .nonfinite import watched
from .patches import copy_without_waiting
from .resume import ResumableTrainLoop

_numbers = itertools.count(1)


@RUNNERS.register_module(name=['SegRunner', 'CPURunner'])
class SegRunner(Runner):
    """MMEngine's runner with :class:`LossWatch`, :class:`ResumableTrainLoop` and a quiet console.

    On a machine without an accelerator, processes that torchrun started talk by gloo, SyncBN too. After
    ``env_cfg.dist_cfg.timeout`` seconds, by default half an hour, a process that waits for the others gives up.

    Raises:
        CheckpointError: if a checkpoint cannot be loaded or resumed from, whatever the reason.
        ConfigError: if something cannot be built from its settings; names them.
    """

    build_log_processor = built_from('log_processor')(Runner.build_log_processor)
    build_model = built_from('model')(Runner.build_model)
    build_param_scheduler = built_from('param_scheduler')(Runner.build_param_scheduler)
    build_test_loop = built_from('test_cfg, test_dataloader or test_evaluator')(Runner.build_test_loop)
    build_val_loop = built_from('val_cfg, val_dataloader or val_evaluator')(Runner.build_val_loop)
    register_custom_hooks = built_from('custom_hooks')(Runner.register_custom_hooks)
    register_default_hooks = built_from('default_hooks')(Runner.register_default_hooks)
    set_randomness = built_from('randomness')(Runner.set_randomness)
    _init_model_weights = built_from('init_cfg in the model')(Runner._init_model_weights)

    @property
    def _on_cpus(self) -> bool:
        return self.launcher == 'pytorch' and get_device() == 'cpu'

    @built_from('env_cfg')
    def setup_env(self, env_cfg: dict) -> None:
        if self._on_cpus and not distributed.is_initialized():
            timeout = env_cfg.get('dist_cfg', {}).get('timeout')  # PyTorch 2.1 takes no None
            distributed.init_process_group('gloo', **(dict(timeout=timedelta(seconds=timeout)) if timeout else {}))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        if self._on_cpus:
            print_log('no GPU: the processes talk by gloo', logger=self.logger)
            model = sync_bn_on_cpus(model)
            if model_wrapper_cfg is None:
                model_wrapper_cfg = dict(
                    type='MMDistributedDataParallel', broadcast_buffers=False,
                    find_unused_parameters=self.cfg.get('find_unused_parameters', False))
            model_wrapper_cfg = dict(model_wrapper_cfg, device_ids=None)
        return super().wrap_model(model_wrapper_cfg, model)

    @built_from('log_level')
    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        console.keep_in_file(logger, console.DUMPS)
        return logger

    @built_from('visualizer')
    def build_visualizer(self, visualizer: Optional[dict] = None) -> Visualizer:
        if isinstance(visualizer, dict):  # MMEngine gives a second run of this process that of the same name
            visualizer = dict(visualizer, name=f'visualizer_{next(_numbers)}')
        return super().build_visualizer(visualizer)

    @built_from('train_cfg or train_dataloader')
    def build_train_loop(self, loop: dict) -> BaseLoop:
        if isinstance(loop, dict) and class_of(loop, LOOPS) is IterBasedTrainLoop:
            loop = dict(loop, type=ResumableTrainLoop)
        return super().build_train_loop(loop)

    @built_from('optim_wrapper')
    def build_optim_wrapper(self, optim_wrapper: dict) -> BaseOptimWrapper:
        if isinstance(optim_wrapper, dict) and 'optimizer' in optim_wrapper:
            kind = class_of(optim_wrapper, OPTIM_WRAPPERS, OptimWrapper)
            check_custom_keys(self.model, optim_wrapper)
            if isclass(kind) and issubclass(kind, OptimWrapper):
                optim_wrapper = optim_wrapper.copy()
                optim_wrapper['type'] = watched(kind)
        return super().build_optim_wrapper(optim_wrapper)

    def call_hook(self, fn_name: str, **kwargs) -> None:
        with built_from('a hook') if fn_name == 'before_run' else nullcontext():  # EMAHook builds its average there
            super().call_hook(fn_name, **kwargs)

    def load_or_resume(self) -> None:
        try:
            super().load_or_resume()
        except (CheckpointError, ConfigError):
            raise
        except Exception as error:  # a checkpoint of garbage can raise anything, wherever its parts are loaded
            text = (str(error).strip().splitlines() or [''])[0]
            raise unusable(self.cfg.load_from, f'{type(error).__name__}: {text:.160}', self.cfg.resume) from error

    def train(self) -> nn.Module:
        console.keep_in_file(self.logger, console.TABLES)
        return super().train()


def build_runner(cfg: Config) -> Runner:
    """Builds :class:`SegRunner`, or the runner that ``runner_type`` of the config names, which is left as it is."""
    console.silence_warnings()
    on_gpu = get_device() == 'cuda'
    for loader in [cfg.get(f'{split}_dataloader') for split in SPLITS] if on_gpu else ():
        if loader:
            loader.setdefault('pin_memory', True)  # from which a GPU copies by itself
    if on_gpu and cfg.get('randomness', {}).get('deterministic'):  # cuBLAS reads it at the first product
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    with built_from('the config'):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else SegRunner.from_cfg(cfg)
    if on_gpu:
        copy_without_waiting(runner.model)
    return runner


def unusable(source: str, reason: str, resuming: bool = True) -> CheckpointError:
    """The error of a checkpoint that holds weights, and something with which no run can begin or go on."""
    if not resuming:
        return CheckpointError(f'{source} cannot be loaded: {reason}')
    return CheckpointError(
        f'{source} cannot be resumed from: {reason}. Give another one with --cfg-options load_from=FILE beside '
        '--resume, or leave out --resume to start from the weights of load_from=FILE')


@contextmanager
def lost_worker_explained(split: str) -> Iterator[None]:
    """Raises LostWorkerError if a process of a data loader died; ``split`` is ``train`` or ``test``."""
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


def end_processes() -> None:
    """Waits for all processes that a launcher started, and ends their communication; alone, nothing.

    A thread of gloo may otherwise outlive the interpreter, and abort the process (pytorch/pytorch#179291).
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
