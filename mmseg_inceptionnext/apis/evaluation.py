"""Evaluation, and prediction of images without labels, by MMEngine's runner."""
import json
import logging
import math
import os.path as osp
from typing import Any, Dict, List, Optional

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import list_dir_or_file
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.registry import HOOKS, METRICS, MODELS

from mmseg_inceptionnext.checkpoints import safe_checkpoints
from mmseg_inceptionnext.checkpoints.compare import unwrap
from mmseg_inceptionnext.checkpoints.files import full_disk_explained
from mmseg_inceptionnext.config import make_writable, metainfo_of
from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES
from mmseg_inceptionnext.engine import build_runner
from mmseg_inceptionnext.engine.check import TryRunHook, check_datasets, check_settings, check_views, explained
from mmseg_inceptionnext.engine.check.signatures import accepted
from mmseg_inceptionnext.engine.console import timed
from mmseg_inceptionnext.engine.hooks import CompleteCheckpointHook, FuseHook
from mmseg_inceptionnext.engine.runner import lost_worker_explained
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.evaluation import ExactIoUMetric, is_known, write_report
from mmseg_inceptionnext.evaluation.predictions import ambiguous_classes, plan_targets, refuse_data_folders
from mmseg_inceptionnext.evaluation.protocol import Protocol, apply_protocol, own_pipelines, without_labels
from mmseg_inceptionnext.models import ImageClassifier
from mmseg_inceptionnext.models.compiled import compile_model
from mmseg_inceptionnext.parts import class_of, is_a, numbered


def evaluate(cfg: Config,
             checkpoint: str,
             out: Optional[str] = None,
             show_dir: Optional[str] = None,
             fuse_model: bool = False,
             trust_checkpoint: bool = False,
             protocol: str = 'ss',
             no_gt: Optional[str] = None,
             compiles: bool = False) -> Dict[str, float]:
    """Evaluates a checkpoint on the test set of a config, or predicts a folder of images that have no labels.

    An evaluation writes to ``cfg.work_dir``: ``metrics.json``, the metrics with the protocol, the checkpoint and the
    names of the classes that are absent; and what :func:`write_report` does of each class.

    Args:
        cfg: a full config, see :func:`load_config`; changed in place.
        checkpoint: the weights; a path or what else :func:`load_source` takes.
        out: folder for the predictions as PNG, in the dataset's own label values: for ADE20K those of its benchmark,
            classes from 1; see :func:`plan_targets` and :func:`label_values`. Default: none, but with ``no_gt``
            ``predictions`` in ``cfg.work_dir``.
        show_dir: folder for the predictions painted over the images.
        fuse_model: fold the norms into the convolutions first, see :func:`mmseg_inceptionnext.fuse`.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.
        protocol: ``ss``, ``ms`` or ``paper``, see :func:`apply_protocol`.
        no_gt: folder that is searched through for images; they are predicted, and nothing is evaluated.
        compiles: run backbone, neck and head through ``torch.compile``, see :func:`compile_model`.

    Raises:
        ConfigError: if an option cannot be applied to this config, or a folder cannot be written.
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, or does not fit the model;
            if the disk is full.
        LostWorkerError: if a process that loads data died.
        LabelError: if a label of the test set is none of its classes.

    Returns:
        The metrics in percent, such as ``{'aAcc': 81.2, 'mIoU': 45.6, 'mAcc': 57.1, 'IoU/wall': 70.3, ...}``; NaN where
        nothing can be divided. Empty with ``no_gt``.
    """
    check_settings(cfg, 'test')
    _refuse_for_classifiers(cfg, {'--out': out, '--show-dir': show_dir, '--no-gt': no_gt,
                                  f'--protocol {protocol}': protocol != 'ss'})
    check_views(cfg, needed=protocol == 'ms')
    check_datasets(cfg, 'test')
    applied = apply_protocol(cfg, protocol)
    metainfo = metainfo_of(cfg, 'test') if no_gt else None
    if no_gt:
        out = out or osp.join(cfg.work_dir, 'predictions')
        images = _predict_only(cfg, metainfo, no_gt, out)
    _apply_options(cfg, out, show_dir)
    for option, folder in (('--work-dir', cfg.work_dir), ('--out', out), ('--show-dir', show_dir)):
        if folder:
            make_writable(folder, option)
    cfg.load_from, cfg.resume = checkpoint, False
    if fuse_model:  # EMAHook would exchange parameters that are gone then; a checkpoint's own are the averaged ones
        cfg.custom_hooks = [
            hook for hook in cfg.get('custom_hooks') or [] if not is_a(hook, HOOKS, EMAHook)]
    with safe_checkpoints(trust_checkpoint), full_disk_explained(cfg.work_dir, lambda: 'Make room and start anew'):
        runner = build_runner(cfg)
        print_log(f'test: {checkpoint} by protocol {applied}; the full log and the config go to {runner.log_dir}',
                  logger='current')
        runner.register_hook(CompleteCheckpointHook())
        runner.register_hook(TryRunHook())
        if fuse_model:
            runner.register_hook(FuseHook())
        if compiles:
            compile_model(unwrap(runner.model))
        _plan_files(runner, show_dir, metainfo)
        try:
            with timed('test'), explained('test'), lost_worker_explained('test'):
                metrics = runner.test()
        except KeyboardInterrupt:
            print_log(f'stopped by Ctrl-C: no metrics were written to {cfg.work_dir}', logger='current',
                      level=logging.WARNING)
            raise
        if no_gt:
            print_log(f'{images} predictions in {out}, by protocol {applied}', logger='current')
            return {}
        means = ', '.join(f'{key} {value:.2f}' for key, value in metrics.items())
        for metric in runner.test_evaluator.metrics:
            metrics.update(getattr(metric, 'per_class', {}))
        if is_main_process():
            _write_results(runner, metrics, applied, cfg.work_dir)
    print_log(f'{means} by protocol {applied}', logger='current')
    return metrics


def _refuse_for_classifiers(cfg: Config, options: Dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value]
    if given and is_a(cfg.get('model') or {}, MODELS, ImageClassifier):
        raise ConfigError(f'{" and ".join(given)}: for segmentors only. A classifier is evaluated as its '
                          'test_dataloader and test_evaluator say; tools/classify.py names what images show')


def _write_results(runner: Runner, metrics: Dict[str, float], protocol: Protocol, work_dir: str) -> None:
    content: Dict[str, Any] = {key: None if math.isnan(value) else float(value)  # JSON has no NaN, and none of NumPy's
                               for key, value in metrics.items()}
    files = [osp.join(work_dir, 'metrics.json')]
    for metric in runner.test_evaluator.metrics:
        report, prefix = getattr(metric, 'report', None), metric.prefix
        if report is not None:
            content[f'{prefix}/absent_classes' if prefix else 'absent_classes'] = report.absent
            files += write_report(report, work_dir, f'{prefix}_' if prefix else '')
    content.update(protocol=protocol._asdict(), checkpoint=runner.cfg.load_from)
    with open(files[0], 'w') as file:
        json.dump(content, file, indent=2)
    print_log(f'written: {", ".join(files)}', logger='current')


def _apply_options(cfg: Config, out: Optional[str], show_dir: Optional[str]) -> None:
    if show_dir:
        hook = (cfg.get('default_hooks') or {}).get('visualization')
        if not isinstance(hook, dict):
            raise ConfigError("--show-dir needs default_hooks.visualization; add visualization=dict("
                              "type='SegVisualizationHook') to default_hooks in the config")
        if not isinstance(cfg.get('visualizer'), dict):
            raise ConfigError("--show-dir needs a visualizer; add visualizer=dict(type='SegLocalVisualizer', "
                              "vis_backends=[dict(type='LocalVisBackend')]) to the config")
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = show_dir
    if out:
        found = cfg.get('test_evaluator')
        found = found.get('metrics', found) if isinstance(found, dict) else found
        metrics = [metric for _, metric in numbered('', found) if isinstance(metric, dict)]
        for metric in metrics:
            kind = class_of(metric, METRICS)
            if kind is IoUMetric and any(map(is_known, metrics)):
                continue  # it would write the same files, in values of its own
            if kind is not None and 'output_dir' in accepted(kind).names:
                metric.output_dir = out
        if not any(metric.get('output_dir') == out for metric in metrics):
            raise ConfigError(f'--out {out} needs a metric that writes files, and test_evaluator has none: add '
                              "dict(type='ExactIoUMetric', iou_metrics=['mIoU']) to it")


def _plan_files(runner: Runner, show_dir: Optional[str], metainfo: Optional[dict]) -> None:
    """Finds a file for each prediction before there is one, or raises a ConfigError; ``metainfo`` is the test set's."""
    dataset = runner.test_dataloader.dataset
    folders = {show_dir: '--show-dir'} if show_dir else {}
    if show_dir and not any(hasattr(hook, '_test_index') for hook in runner.hooks):  # MMSegmentation 1.2 numbers none
        plan_targets(dataset, metainfo, flat=True)
    for metric in runner.test_evaluator.metrics:
        if getattr(metric, 'output_dir', None):
            ours = isinstance(metric, ExactIoUMetric)
            targets = plan_targets(dataset, metainfo, flat=not ours)
            names = {osp.dirname(target.name) for target in targets.values()}
            folders.update({osp.join(metric.output_dir, name): '--out' for name in ['', *names]})
            if ours:
                metric.targets = targets
                unclear = ambiguous_classes((metric.dataset_meta or {}).get('classes', ()), targets)
                if unclear:
                    print_log(f'label values that are written: {"; ".join(unclear)}', logger='current')
    if folders:
        refuse_data_folders(dataset, folders)


def _predict_only(cfg: Config, metainfo: dict, folder: str, out: str) -> int:
    """Puts a folder of images in the place of the test set, with its classes and colours; returns their number."""
    names = _images(folder, out)
    pipeline = own_pipelines(cfg, '--no-gt')[0]
    cfg.test_dataloader.dataset = dict(
        type='FolderDataset',
        data_prefix=dict(img_path=folder),
        img_suffix=tuple(sorted({osp.splitext(name)[1] for name in names})),
        metainfo=dict(classes=metainfo['classes'], palette=metainfo['palette']),
        reduce_zero_label=metainfo.get('reduce_zero_label', False),
        pipeline=without_labels(pipeline))
    cfg.test_evaluator = dict(type='ExactIoUMetric', format_only=True)
    return len(names)


def _images(folder: str, out: str) -> List[str]:
    """Names of the images in a folder, which ``out`` must not be in."""
    if not osp.isdir(folder):
        raise ConfigError(f'--no-gt {folder}: no such folder')
    if (osp.realpath(out) + osp.sep).startswith(osp.realpath(folder) + osp.sep):
        raise ConfigError(f'--out {out} is in {folder}, where the PNGs could overwrite images or be taken for some; '
                          'choose a folder elsewhere')
    names = [name for name in list_dir_or_file(folder, list_dir=False, recursive=True)
             if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise ConfigError(f'--no-gt {folder} holds no image; files that end in {" ".join(IMAGE_SUFFIXES)} are taken')
    return names
