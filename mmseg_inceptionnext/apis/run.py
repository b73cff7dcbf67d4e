"""Training and evaluation by MMEngine's runner."""
import json
import os.path as osp
from typing import Dict, Optional

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmseg_inceptionnext.engine import build_runner

from .config import ConfigError


def train(cfg: Config, resume: bool = False, amp: bool = False, auto_scale_lr: bool = False) -> None:
    """Trains by a config.

    Args:
        cfg: a full config, see :func:`load_config`.
        resume: go on from the latest checkpoint in ``cfg.work_dir``.
        amp: train in mixed precision with dynamic loss scaling.
        auto_scale_lr: scale the learning rate linearly from the recipe's batch to this run's.

    Raises:
        ConfigError: if ``amp`` or ``auto_scale_lr`` cannot be applied to this config.
    """
    if amp:
        if get_device() == 'cpu':
            raise ConfigError('--amp needs a GPU, and there is none here: train without it')
        if cfg.optim_wrapper.type not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(f'--amp replaces optim_wrapper.type OptimWrapper, but the config has '
                              f'{cfg.optim_wrapper.type}; set its precision in the config instead')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError('--auto-scale-lr needs the batch that the learning rate was chosen for; add '
                              'auto_scale_lr = dict(base_batch_size=16) to the config, with the right number')
        cfg.auto_scale_lr.enable = True
    cfg.resume = resume
    build_runner(cfg).train()


def test(cfg: Config,
         checkpoint: str,
         out: Optional[str] = None,
         show_dir: Optional[str] = None,
         tta: bool = False) -> Dict[str, float]:
    """Evaluates a checkpoint on the test set of a config.

    Args:
        cfg: a full config, see :func:`load_config`.
        checkpoint: path of the weights.
        out: folder for the predictions as PNG, in the dataset's own label convention.
        show_dir: folder for the predictions painted over the images.
        tta: average over scales and flips (``tta_pipeline`` of the config).

    Raises:
        ConfigError: if an option cannot be applied to this config, or the checkpoint does not fit it.

    Returns:
        The metrics, such as ``{'aAcc': 81.2, 'mIoU': 45.6, 'mAcc': 57.1}`` in percent, which are also written to
        ``metrics.json`` in ``cfg.work_dir``.
    """
    cfg.load_from, cfg.resume = None, False  # train() leaves its own in the config that the work dir keeps
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
    runner = build_runner(cfg)
    _load_whole(runner, checkpoint)
    metrics = runner.test()
    if is_main_process():
        with open(osp.join(cfg.work_dir, 'metrics.json'), 'w') as file:
            json.dump(metrics, file, indent=2)
    return metrics


def _load_whole(runner: Runner, checkpoint: str) -> None:
    """Loads the weights strictly: MMEngine alone would log what does not fit and evaluate a random model."""
    try:
        runner.load_checkpoint(checkpoint, strict=True)
    except FileNotFoundError as error:
        raise ConfigError(f'{checkpoint}: no such checkpoint file') from error
    except RuntimeError as error:
        raise ConfigError(f'the weights in {checkpoint} do not fit the model of the config: {error}') from error
