"""Training and evaluation by MMEngine's runner."""
import json
import os.path as osp
from typing import Dict, Optional

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process

from mmseg_inceptionnext.engine import NonFiniteLossHook, build_runner, choose_checkpoint, match_batch, safe_checkpoints
from mmseg_inceptionnext.engine.hooks import FuseHook, WholeCheckpointHook
from mmseg_inceptionnext.engine.reproducible import ReproducibleRunHook

from .config import ConfigError


def train(cfg: Config,
          resume: bool = False,
          amp: Optional[str] = None,
          auto_scale_lr: bool = False,
          trust_checkpoint: bool = False,
          deterministic: bool = False,
          accumulate: bool = False) -> Dict[str, float]:
    """Trains by a config.

    Args:
        cfg: a full config, see :func:`load_config`.
        resume: go on from the newest checkpoint in ``cfg.work_dir`` that reads whole, or from ``cfg.load_from``.
        amp: ``fp16`` or ``bf16`` to train in mixed precision, the first with dynamic loss scaling.
        auto_scale_lr: scale the learning rate linearly from the recipe's batch to this run's.
        trust_checkpoint: run what is inside the checkpoints, if they hold more than data.
        deterministic: use deterministic algorithms only, which are slower.
        accumulate: make this run's batch the recipe's by accumulating gradients, see :func:`match_batch`.

    Returns:
        The metrics of the last validation, none if there was none.

    Raises:
        ConfigError: if an option cannot be applied to this config.
        CheckpointError: if a checkpoint cannot be had or read, holds more than data, does not fit, or cannot be
            written.
        NonFiniteLossError: if the loss stays NaN or infinite.
        SampleError: if a file of the data is broken, or a label does not fit the settings.
    """
    _apply_training_options(cfg, amp, auto_scale_lr, accumulate, deterministic)
    cfg.resume = resume
    if resume and not cfg.get('load_from'):
        cfg.load_from = choose_checkpoint(_checkpoint_folder(cfg))
        cfg.resume = cfg.load_from is not None
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


def _checkpoint_folder(cfg: Config) -> str:
    """Where the config's checkpoints are written: MMEngine adds the work dir's name to an ``out_dir``."""
    out_dir = cfg.get('default_hooks', {}).get('checkpoint', {}).get('out_dir')
    return osp.join(out_dir, osp.basename(cfg.work_dir.rstrip(osp.sep))) if out_dir else cfg.work_dir


def test(cfg: Config,
         checkpoint: str,
         out: Optional[str] = None,
         show_dir: Optional[str] = None,
         tta: bool = False,
         fuse_model: bool = False,
         trust_checkpoint: bool = False) -> Dict[str, float]:
    """Evaluates a checkpoint on the test set of a config.

    Args:
        cfg: a full config, see :func:`load_config`.
        checkpoint: the weights; a path or what else :func:`load_source` takes.
        out: folder for the predictions as PNG, in the dataset's own label convention.
        show_dir: folder for the predictions painted over the images.
        tta: average over scales and flips (``tta_pipeline`` of the config).
        fuse_model: fold the norms into the convolutions first, see :func:`mmseg_inceptionnext.fuse`.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Raises:
        ConfigError: if an option cannot be applied to this config.
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, or does not fit the model.
        SampleError: if a file of the data is broken, or a label does not fit the settings.

    Returns:
        The metrics, such as ``{'aAcc': 81.2, 'mIoU': 45.6, 'mAcc': 57.1}`` in percent, which are also written to
        ``metrics.json`` in ``cfg.work_dir``.
    """
    _apply_options(cfg, out, show_dir, tta)
    cfg.load_from, cfg.resume = checkpoint, False
    with safe_checkpoints(trust_checkpoint, cfg):
        runner = build_runner(cfg)
        runner.register_hook(WholeCheckpointHook())
        if fuse_model:
            runner.register_hook(FuseHook())
        metrics = runner.test()
    if is_main_process():
        with open(osp.join(cfg.work_dir, 'metrics.json'), 'w') as file:
            json.dump(metrics, file, indent=2)
    return metrics


def _apply_options(cfg: Config, out: Optional[str], show_dir: Optional[str], tta: bool) -> None:
    if show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise ConfigError("--show-dir needs default_hooks.visualization; add visualization=dict("
                              "type='SegVisualizationHook') to default_hooks in the config")
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = show_dir
    if tta:
        if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
            raise ConfigError('--tta needs a tta_pipeline and a tta_model in the config; configs/_base_ has both, in '
                              'datasets/ade20k.py and default_runtime.py')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    if out:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for evaluator in evaluators:
            evaluator.output_dir = out
