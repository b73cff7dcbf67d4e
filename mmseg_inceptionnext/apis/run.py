"""Training and evaluation by MMEngine's runner."""
import json
import os.path as osp
from typing import Dict, Optional

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process

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
        ConfigError: if ``tta`` cannot be applied to this config.

    Returns:
        The metrics, such as ``{'aAcc': 81.2, 'mIoU': 45.6, 'mAcc': 57.1}`` in percent, which are also written to
        ``metrics.json`` in ``cfg.work_dir``.
    """
    cfg.load_from = checkpoint
    if show_dir:
        cfg.default_hooks.visualization.draw = True
        cfg.visualizer.save_dir = show_dir
    if tta:
        if 'tta_pipeline' not in cfg:
            raise ConfigError('--tta needs a tta_pipeline in the config; configs/_base_/datasets/ade20k.py has one')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    if out:
        cfg.test_evaluator.output_dir = out
    metrics = build_runner(cfg).test()
    if is_main_process():
        with open(osp.join(cfg.work_dir, 'metrics.json'), 'w') as file:
            json.dump(metrics, file, indent=2)
    return metrics
