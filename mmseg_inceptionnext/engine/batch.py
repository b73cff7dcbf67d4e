"""The recipe's batch: what runs instead, and how to have it on fewer devices by adding up gradients."""
import logging
import os

from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook, ParamSchedulerHook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS, LOOPS

from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models.sync_bn import SYNCHRONISED
from mmseg_inceptionnext.parts import is_a, type_name

from .patches import accumulated

WORLD_SIZES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')  # set by each launcher


@HOOKS.register_module()
class BatchSizeHook(Hook):
    """Says at the start of training which batch the recipe was made for and which one runs.

    The recipe's batch is ``auto_scale_lr.base_batch_size`` of the config. Where the two differ the line is a warning
    that says what to do.
    """

    def before_train(self, runner: Runner) -> None:
        recipe, count = runner.cfg.get('auto_scale_lr', {}), accumulated(runner.optim_wrapper)
        per_process, processes = runner.train_dataloader.batch_size, runner.world_size
        base = recipe.get('base_batch_size')
        if base is None:
            return
        parts = f'{processes} process{"es" * (processes > 1)} x {per_process} images'
        if count > 1:
            synchronised = any(isinstance(module, SYNCHRONISED) for module in runner.model.modules())
            seen = per_process * (processes if synchronised else 1)
            parts += f' x {count} accumulated steps; BatchNorm sees {seen} images at once'
        actual = processes * per_process * count
        line = f'batch: the recipe has {base}, this run has {actual} ({parts})'
        scale = processes * per_process / base if recipe.get('enable') else 1  # MMEngine ignores accumulation
        if recipe.get('enable'):
            line += f'; learning rate scaled by {scale:g}'
        elif actual != base:
            line += ('; accuracy may differ: use more GPUs or another train_dataloader.batch_size, accumulate '
                     "gradients up to the recipe's batch with --match-batch, or scale the learning rate with "
                     '--auto-scale-lr')
        fits = actual == base and scale == 1
        print_log(line, logger=runner.logger, level=logging.INFO if fits else logging.WARNING)


@HOOKS.register_module()
class AccumulatedParamSchedulerHook(ParamSchedulerHook):
    """MMEngine's ParamSchedulerHook that steps the schedules once for each step of the optimizer.

    MMEngine's own steps them in every iteration, so that with accumulated gradients a schedule would end too early.
    """

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if (runner.iter + 1) % accumulated(runner.optim_wrapper) == 0:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


def match_batch(cfg: Config) -> int:
    """Lets a config train with the recipe's batch, ``auto_scale_lr.base_batch_size``, on the processes there are.

    Gradients are accumulated over as many iterations as the recipe's batch takes. Everything that counts iterations
    grows by that number: ``max_iters``, and the starts and intervals of validation, checkpoints, logging and EMA. The
    schedules of learning rates step with the optimizer. BatchNorm's statistics still come from the small batch.

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
    if not is_a(cfg.train_cfg, LOOPS, IterBasedTrainLoop):
        raise ConfigError(f'--match-batch takes recipes that count iterations, and train_cfg.type is '
                          f'{type_name(cfg.train_cfg) or "EpochBasedTrainLoop"}')
    processes = int(os.environ.get(WORLD_SIZES.get(cfg.get('launcher'), ''), 1))
    batch = cfg.train_dataloader.batch_size * processes
    count, rest = divmod(base, batch)
    if rest or not count:
        fitting = [size for size in range(1, base + 1) if base % (size * processes) == 0]
        fitting = fitting[1:] or fitting  # BatchNorm may not train on one image
        fix = (f'use --cfg-options train_dataloader.batch_size={fitting[-1]} or another of '
               f'{", ".join(map(str, fitting))}' if fitting else 'use fewer processes')
        raise ConfigError(f'--match-batch: the recipe has a batch of {base}, no multiple of the {batch} images of this '
                          f'run ({processes} x {cfg.train_dataloader.batch_size}); {fix}')
    if count > 1:
        _accumulate(cfg, count)
    return count


def _accumulate(cfg: Config, count: int) -> None:
    cfg.optim_wrapper.accumulative_counts = count
    loop, hooks = cfg.train_cfg, cfg.get('default_hooks', {})
    averages = [hook for hook in cfg.get('custom_hooks') or [] if is_a(hook, HOOKS, EMAHook)]
    loop.setdefault('val_interval', 1000)  # as MMEngine has it
    for hook in averages:
        hook.setdefault('interval', 1)
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [(start * count, interval * count) for start, interval in loop.dynamic_intervals]
    counted = [(loop, 'max_iters'), (loop, 'val_begin'), (loop, 'val_interval'), (hooks.get('logger'), 'interval'),
               (hooks.get('checkpoint'), 'save_begin'), (hooks.get('checkpoint'), 'interval')]
    for settings, key in [*counted, *((hook, key) for hook in averages for key in ('interval', 'begin_iter'))]:
        if settings is not None and settings.get(key, 0) > 0:
            settings[key] *= count
    if hooks:
        hooks.param_scheduler = dict(type='AccumulatedParamSchedulerHook')


def note_batch(runner: Runner) -> None:
    """Keeps in a run's checkpoints what its iterations are, and compares it with that of the one it resumes from.

    Raises:
        ConfigError: if that accumulated the gradients of another number of batches: its iterations are others.
    """
    count, images = accumulated(runner.optim_wrapper), runner.train_dataloader.batch_size * runner.world_size
    then = runner.message_hub.runtime_info if runner.iter else {}
    images_then, count_then = then.get('images_per_iter', images), then.get('accumulated_batches', count)
    if count_then != count:
        raise ConfigError(
            f'--resume: the checkpoint comes from a run of {count_then} batches of {images_then} images to a step, and '
            f'this one has {count} of {images}, so that iteration {runner.iter} is another place of the recipe: resume '
            f'with {images_then} images in all processes together, by their number and train_dataloader.batch_size, '
            f'and {"with" if count_then > 1 else "without"} --match-batch, or start from its weights in another '
            '--work-dir, with --cfg-options load_from=FILE and without --resume')
    if images_then != images:
        print_log(f'resume: the checkpoint was trained with {images_then} images an iteration, this run has {images}: '
                  'other samples, and accuracy may differ', logger=runner.logger, level=logging.WARNING)
    runner.message_hub.update_info_dict(dict(accumulated_batches=count, images_per_iter=images))
