"""Training by MMEngine's runner."""
import difflib
import os.path as osp
from typing import Dict, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_inceptionnext.engine import NonFiniteLossHook, build_runner, choose_checkpoint, match_batch, safe_checkpoints
from mmseg_inceptionnext.engine.hooks import WholeCheckpointHook
from mmseg_inceptionnext.engine.reproducible import ReproducibleRunHook
from mmseg_inceptionnext.evaluation import CLASS_METRICS

from .config import ConfigError, check_ignore_index


def train(cfg: Config,
          resume: Union[bool, str] = False,
          amp: Optional[str] = None,
          auto_scale_lr: bool = False,
          trust_checkpoint: bool = False,
          deterministic: bool = False,
          accumulate: bool = False) -> Dict[str, float]:
    """Trains by a config.

    Args:
        cfg: a full config, see :func:`load_config`.
        resume: go on from the newest checkpoint in ``cfg.work_dir`` that reads whole, or from this file. Where there is
            none yet, training starts at the beginning, with the weights of ``cfg.load_from`` if it names any.
        amp: ``fp16`` or ``bf16`` to train in mixed precision, the first with dynamic loss scaling.
        auto_scale_lr: scale the learning rate linearly from the recipe's batch to this run's.
        trust_checkpoint: run what is inside the checkpoints, if they hold more than data.
        deterministic: use deterministic algorithms only, which are slower.
        accumulate: make this run's batch the recipe's by accumulating gradients, see :func:`match_batch`.

    Returns:
        The metrics of the last validation, none if there was none.

    Raises:
        ConfigError: if an option cannot be applied to this config, its ``save_best`` names a class that the dataset has
            not, or dataset and heads ignore different values.
        CheckpointError: if a checkpoint cannot be had or read, holds more than data, does not fit, or cannot be
            written.
        NonFiniteLossError: if the loss stays NaN or infinite.
        SampleError: if a file of the data is broken, or a label does not fit the settings.
    """
    check_ignore_index(cfg)
    _apply_training_options(cfg, amp, auto_scale_lr, accumulate, deterministic)
    resumed = _choose_checkpoint(cfg) if resume is True else resume
    cfg.resume, cfg.load_from = bool(resumed), resumed or cfg.get('load_from')
    _find_classes_of_save_best(cfg)
    with safe_checkpoints(trust_checkpoint, cfg):
        runner = build_runner(cfg)
        runner.register_hook(WholeCheckpointHook(may_differ=True))
        runner.register_hook(ReproducibleRunHook(), priority='VERY_HIGH')
        if not any(isinstance(hook, NonFiniteLossHook) for hook in runner.hooks):
            runner.register_hook(NonFiniteLossHook())
        runner.train()
    scalars = runner.message_hub.log_scalars
    return {name[4:]: values.current() for name, values in scalars.items() if name.startswith('val/')}


def _apply_training_options(cfg: Config, amp: Optional[str], auto_scale_lr: bool, accumulate: bool, deterministic: bool
                            ) -> None:
    if amp:
        _mix_precision(cfg, amp)
    if auto_scale_lr and accumulate:
        raise ConfigError('--auto-scale-lr changes the learning rate to this batch, --match-batch the batch to the '
                          'recipe: give one of them')
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError('--auto-scale-lr needs the batch that the learning rate was chosen for; add '
                              'auto_scale_lr = dict(base_batch_size=16) to the config, with the right number')
        cfg.auto_scale_lr.enable = True
    if accumulate:
        match_batch(cfg)
    if deterministic:
        cfg.randomness = {'seed': None, **cfg.get('randomness', {}), 'deterministic': True}


def _mix_precision(cfg: Config, amp: str) -> None:
    if get_device() == 'cpu':
        raise ConfigError('--amp needs a GPU, and there is none here: train without it')
    if cfg.optim_wrapper.type not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ConfigError(f'--amp replaces optim_wrapper.type OptimWrapper, but the config has '
                          f'{cfg.optim_wrapper.type}; set its precision in the config instead')
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dict(fp16='float16', bf16='bfloat16')[amp])
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic' if amp == 'fp16' else 1.)  # bf16 has the range of fp32


def _choose_checkpoint(cfg: Config) -> Optional[str]:
    """Looks where the config's checkpoints are written: MMEngine adds the work dir's name to an ``out_dir``."""
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    folder = cfg.work_dir
    if hook.get('out_dir'):
        folder = osp.join(hook.out_dir, osp.basename(folder.rstrip(osp.sep)))
    return choose_checkpoint(folder, hook.get('filename_tmpl'))


def _find_classes_of_save_best(cfg: Config) -> None:
    """Puts the dataset's own names into keys such as ``IoU/screen door``, or says at the start that there is none.

    MMEngine would say so after the first validation only. And ``--cfg-options`` takes spaces out of what it is given.
    """
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    best = hook.get('save_best')
    keys = [best] if isinstance(best, str) else list(best or [])
    if 'val_dataloader' in cfg and any(key.partition('/')[0] in CLASS_METRICS for key in keys):
        init_default_scope(cfg.get('default_scope') or 'mmseg')
        dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, lazy_init=True, pipeline=[]))
        found = [_find_class(key, dataset.metainfo['classes']) for key in keys]
        hook['save_best'] = found[0] if isinstance(best, str) else found


def _find_class(key: str, classes: Sequence[str]) -> str:
    metric, _, wanted = key.partition('/')
    if metric not in CLASS_METRICS:
        return key
    names = {''.join(name.split()): name for name in classes}
    squeezed = ''.join(wanted.split())
    if squeezed not in names:
        near = [names[name] for name in difflib.get_close_matches(squeezed, names)] or list(classes)
        raise ConfigError(f'save_best={key!r}: the validation set has no class {wanted!r}; near to it are '
                          f'{", ".join(repr(name) for name in near[:5])}. A name that holds a comma must be given in '
                          'the config file, since --cfg-options makes a list of it')
    return f'{metric}/{names[squeezed]}'
