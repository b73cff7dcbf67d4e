"""The recipe's batch on fewer devices, by adding up the gradients of several batches."""
import os

from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_inceptionnext.errors import ConfigError

WORLD_SIZES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')  # set by each launcher


@HOOKS.register_module()
class AccumulatedParamSchedulerHook(ParamSchedulerHook):
    """MMEngine's ParamSchedulerHook that steps the schedules once for each step of the optimizer.

    MMEngine's own steps them in every iteration, so that with accumulated gradients a schedule would end too early.
    """

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if (runner.iter + 1) % runner.optim_wrapper._accumulative_counts == 0:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


def match_batch(cfg: Config) -> int:
    """Lets a config train with the recipe's batch, ``auto_scale_lr.base_batch_size``, on the processes there are.

    Gradients are accumulated over as many iterations as the recipe's batch takes. Everything that counts iterations
    grows by that number: ``max_iters``, and the starts and intervals of validation, checkpoints, logging and EMA. The
    schedules of learning rates do not: they step with the optimizer, which so takes the recipe's number of steps at the
    recipe's rates. BatchNorm's statistics still come from the small batch.

    Args:
        cfg: a full config with an iteration-based loop; it is changed.

    Returns:
        How many iterations make a step.

    Raises:
        ConfigError: if the recipe's batch is unknown or no multiple of this run's, or the loop counts epochs.
    """
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if base is None:
        raise ConfigError('--match-batch needs the batch of the recipe; add auto_scale_lr = dict(base_batch_size=16) '
                          'to the config, with the right number')
    if cfg.train_cfg.get('type') != 'IterBasedTrainLoop':
        raise ConfigError(f'--match-batch takes recipes that count iterations, and train_cfg.type is '
                          f'{cfg.train_cfg.get("type")}')
    processes = int(os.environ.get(WORLD_SIZES.get(cfg.get('launcher'), ''), 1))
    batch = cfg.train_dataloader.batch_size * processes
    count, rest = divmod(base, batch)
    if rest or not count:
        fitting = [size for size in range(1, base + 1) if base % (size * processes) == 0]
        fix = (f'use --cfg-options train_dataloader.batch_size={fitting[-1]} or another of '
               f'{", ".join(map(str, fitting))}' if fitting else 'use fewer processes')
        raise ConfigError(f'--match-batch: the recipe has a batch of {base}, no multiple of the {batch} images of this '
                          f'run ({processes} x {cfg.train_dataloader.batch_size}); {fix}')
    if count > 1:
        _accumulate(cfg, count)
    return count


def _accumulate(cfg: Config, count: int) -> None:
    cfg.optim_wrapper.accumulative_counts = count
    hooks = cfg.get('default_hooks', {})
    averages = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') == 'EMAHook']
    for hook in averages:
        hook.setdefault('interval', 1)
    loop = cfg.train_cfg
    loop.setdefault('val_interval', 1000)  # as MMEngine has it
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [(start * count, interval * count) for start, interval in loop.dynamic_intervals]
    counted = [(loop, 'max_iters'), (loop, 'val_begin'), (loop, 'val_interval'), (hooks.get('logger'), 'interval'),
               (hooks.get('checkpoint'), 'save_begin'), (hooks.get('checkpoint'), 'interval')]
    for settings, key in [*counted, *((hook, key) for hook in averages for key in ('interval', 'begin_iter'))]:
        if settings is not None and settings.get(key, 0) > 0:
            settings[key] *= count
    if hooks:
        hooks.param_scheduler = dict(type='AccumulatedParamSchedulerHook')
