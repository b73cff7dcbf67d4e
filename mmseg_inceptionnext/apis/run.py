"""Training by MMEngine's runner."""
import logging
import os
import os.path as osp
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, Optional, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS

from mmseg_inceptionnext.checkpoints import choose_checkpoint, safe_checkpoints
from mmseg_inceptionnext.checkpoints.compare import unwrap
from mmseg_inceptionnext.checkpoints.files import full_disk_explained, locked, what_resumes
from mmseg_inceptionnext.config import make_writable
from mmseg_inceptionnext.engine import (
    AutocastOptimWrapper,
    NonFiniteLossHook,
    build_runner,
    check_autocast,
    fuse_optimizer,
    match_batch,
)
from mmseg_inceptionnext.engine.check import TryRunHook, check_datasets, check_save_best, check_settings, check_views
from mmseg_inceptionnext.engine.console import timed
from mmseg_inceptionnext.engine.hooks import CompleteCheckpointHook
from mmseg_inceptionnext.engine.resume import ResumeHook
from mmseg_inceptionnext.engine.runner import lost_worker_explained
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models.compiled import compile_model
from mmseg_inceptionnext.parts import class_of, type_name

SECONDS_TO_WAIT = 10  # for a lock: the workers of a training that was killed may hold it until they notice
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')  # by launcher, before processes meet


def train(cfg: Config,
          resume: Union[bool, str] = False,
          amp: Optional[str] = None,
          auto_scale_lr: bool = False,
          trust_checkpoint: bool = False,
          deterministic: bool = False,
          accumulate: bool = False,
          compiles: bool = False) -> Dict[str, float]:
    """Trains by a config. The folders that it writes to are locked for other trainings.

    Args:
        cfg: a full config, see :func:`load_config`.
        resume: go on from the newest complete checkpoint in ``cfg.work_dir``, which ``cfg.resume`` asks for, too, or
            from this file. Where there is none yet, training starts at the beginning, with the weights of
            ``cfg.load_from`` if it names any.
        amp: ``fp16`` or ``bf16`` to train in mixed precision, the first with dynamic loss scaling; see
            :class:`AutocastOptimWrapper`.
        auto_scale_lr: scale the learning rate linearly from the recipe's batch to this run's.
        trust_checkpoint: run what is inside the checkpoints, if they hold more than data.
        deterministic: use deterministic algorithms only, which are slower, and seeds by which a resumed run ends with
            the same weights as one that was not stopped.
        accumulate: make this run's batch the recipe's by accumulating gradients, see :func:`match_batch`.
        compiles: run backbone, neck and heads through ``torch.compile``, see :func:`compile_model`.

    Returns:
        The metrics of the last validation, none if there was none.

    Raises:
        ConfigError: if a setting is unknown or means nothing, or a step of training or validation fails by it, see
            :func:`check_settings` and :class:`TryRunHook`; if an option cannot be applied to this config, its
            ``save_best`` names what is not measured, dataset and heads have different classes or ignore different
            values, or another training writes to its folders, or nobody can.
        CheckpointError: if a checkpoint cannot be had or read, holds more than data, does not fit, cannot be resumed
            from, or cannot be written, or the disk is full.
        LostWorkerError: if a process that loads data died.
        NonFiniteLossError: if the loss stays NaN or infinite.
        SampleError: if a file of the data is broken, or a label does not fit the settings.
    """
    make_writable(cfg.work_dir, '--work-dir')
    check_settings(cfg, 'train', 'val')
    check_views(cfg, needed=False)
    check_datasets(cfg, 'train', 'val')
    _apply_training_options(cfg, amp, auto_scale_lr, accumulate, deterministic)
    check_save_best(cfg)
    place = _where_checkpoints_are(cfg)
    with _alone_in_folders(cfg), safe_checkpoints(trust_checkpoint), full_disk_explained(
            cfg.work_dir, lambda: f'Make room. {what_resumes(*place)}'):
        resume = resume or bool(cfg.get('resume'))
        resumed = choose_checkpoint(*place) if resume is True else resume
        cfg.resume, cfg.load_from = bool(resumed), resumed or cfg.get('load_from')
        runner = build_runner(cfg)
        runner.register_hook(CompleteCheckpointHook(may_differ=True))
        runner.register_hook(ResumeHook())
        tried = TryRunHook(forward=not compiles)  # it would be compiled for one batch
        runner.register_hook(tried)
        if not any(isinstance(hook, NonFiniteLossHook) for hook in runner.hooks):
            runner.register_hook(NonFiniteLossHook())
        if compiles:
            compile_model(unwrap(runner.model))
        length = {key[4:]: cfg.train_cfg[key] for key in ('max_iters', 'max_epochs') if key in cfg.train_cfg}
        print_log(f'train: {", ".join(f"{count} {name}" for name, count in length.items())}; checkpoints go to '
                  f'{place[0]}, the full log and the config to {runner.log_dir}', logger='current')
        try:
            with timed('train'), lost_worker_explained('train'), tried.explained(runner):
                runner.train()
        except KeyboardInterrupt:
            if is_main_process():
                print_log(f'stopped by Ctrl-C after iteration {runner.iter}. {what_resumes(*place)}', logger='current',
                          level=logging.WARNING)
            raise
    scalars = runner.message_hub.log_scalars
    return {name[4:]: values.current() for name, values in scalars.items() if name.startswith('val/')}


def _apply_training_options(cfg: Config, amp: Optional[str], auto_scale_lr: bool, accumulate: bool, deterministic: bool
                            ) -> None:
    if amp:
        _mix_precision(cfg, amp)
    fuse_optimizer(cfg)
    if auto_scale_lr:
        if accumulate:
            raise ConfigError('--auto-scale-lr changes the learning rate to this batch, --match-batch the batch to the '
                              'recipe: give one of them')
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError('--auto-scale-lr needs the batch that the learning rate was chosen for; add '
                              'auto_scale_lr = dict(base_batch_size=16) to the config, with the right number')
        cfg.auto_scale_lr.enable = True
    if accumulate:
        match_batch(cfg)
    if deterministic:
        cfg.randomness = {'seed': None, **cfg.get('randomness', {}), 'deterministic': True}


def _mix_precision(cfg: Config, amp: str) -> None:
    wrapper = class_of(cfg.optim_wrapper, OPTIM_WRAPPERS, OptimWrapper)
    if wrapper not in (OptimWrapper, AmpOptimWrapper, AutocastOptimWrapper):
        raise ConfigError(f'--amp replaces optim_wrapper.type OptimWrapper, but the config has '
                          f'{type_name(cfg.optim_wrapper)}; set its precision in the config instead')
    dtype = dict(fp16='float16', bf16='bfloat16')[amp]
    check_autocast(get_device(), getattr(torch, dtype))
    cfg.optim_wrapper.update(type='AutocastOptimWrapper', dtype=dtype)


def _where_checkpoints_are(cfg: Config) -> Tuple[str, Optional[str]]:
    """Folder and pattern of the config's checkpoints: MMEngine adds the work dir's name to an ``out_dir``."""
    hook, folder = cfg.get('default_hooks', {}).get('checkpoint') or {}, cfg.work_dir
    if hook.get('out_dir'):
        folder = osp.join(hook.out_dir, osp.basename(folder.rstrip(osp.sep)))
    return folder, hook.get('filename_tmpl')


@contextmanager
def _alone_in_folders(cfg: Config) -> Iterator[None]:
    """Makes the folders that a training writes to, and keeps others out by locks that go with the main process."""
    folders = [(cfg.work_dir, '--work-dir'), (_where_checkpoints_are(cfg)[0], 'default_hooks.checkpoint.out_dir')]
    folders = [(folder, option) for folder, option in folders if '://' not in folder]  # what is no folder on a disk
    for folder, option in folders:
        make_writable(folder, option)
    is_main = int(os.environ.get(RANKS.get(cfg.get('launcher'), ''), 0)) == 0
    with ExitStack() as locks:
        for folder in {osp.realpath(folder) for folder, _ in folders if is_main}:
            locks.enter_context(locked(osp.join(folder, 'training.lock'), ConfigError(
                f'another training writes to {folder}: wait for it, stop it, or give another --work-dir'),
                SECONDS_TO_WAIT))
        yield
