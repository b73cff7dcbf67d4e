"""Checks each setting of a config before a run: that its name is known, and that its value means something.

What stands here needs no data and builds nothing; what only a run finds is told by :class:`TryRunHook`.
"""
import inspect
import logging
import textwrap
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TRANSFORMS,
)

from mmseg_inceptionnext.datasets.check.settings import compare_reduce_zero_label
from mmseg_inceptionnext.datasets.steps import LABEL_LOADERS, MOVING
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models.segmentors.modes import is_number, is_whole, mode_problem
from mmseg_inceptionnext.parts import class_of, find_datasets, is_a, numbered, type_name

from .doubts import doubts
from .parts import LAYERS, Part, hooks_of, parts_of, parts_of_views, value_of
from .signatures import accepted, is_stock, names_of, nearest, refuse_unknown, takes_numbers_only
from .values import NEVER_NONE, rules_of_part, rules_of_sections

PARAMWISE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult',
             'flat_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate', 'decay_rate', 'decay_type', 'num_layers',
             'layer_decay_rate', 'force_default_settings')
MULTIPLIERS = ('lr_mult', 'decay_mult', 'wd_mult')  # the last is read by nothing, and in configs of MMSegmentation
TEST_CFG = ('mode', 'crop_size', 'stride', 'batch_size', 'return_logits', 'subdivision_steps',
            'subdivision_num_points', 'scale_factor')
IOU_METRICS = ('mIoU', 'mDice', 'mFscore')
HOOK_NAMES = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization'}
CLIP = ('type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value')
FREE = dict(  # dicts that are no class's, with all that is read of them
    auto_scale_lr=('enable', 'base_batch_size'), env_cfg=('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    randomness=tuple(inspect.signature(Runner.set_randomness).parameters)[1:])


def check_settings(cfg: Config, *splits: str) -> None:
    """Stops before a setting that would be taken silently, or fail where nothing names it; warns of doubtful ones.

    Args:
        cfg: a full config; sections of it that are None are taken out.
        splits: those that run, ``train`` and ``val``, or ``test``; those without a dataloader are left out.

    Raises:
        ConfigError: if a name of a setting or a ``type`` is not known, a value is out of range, a loop would never end,
            or data sets of one kind count their labels in two ways.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    _leave_out_none(cfg)
    splits = tuple(split for split in splits if split == 'train' or cfg.get(f'{split}_dataloader'))
    if not splits:
        return
    needed = ['model', *(['train_cfg', 'train_dataloader', 'optim_wrapper'] if 'train' in splits else [])]
    for name in [*needed, *(name for name in ('default_hooks', *FREE) if cfg.get(name) is not None)]:
        if not isinstance(cfg.get(name), dict):
            raise ConfigError(f'{name} is {cfg.get(name)!r}: give its settings, {name}=dict(...)')
    parts = list(parts_of(cfg, splits))
    for part in parts:
        _check_part(part)
    _check_order(parts)
    _check_free(cfg, splits)
    rules = [rule for part in parts if isinstance(part.settings, dict) and is_stock(
        class_of(part.settings, part.registry, part.default)) for rule in rules_of_part(part)]
    for name, is_allowed, allowed in [*_values(cfg, splits), *rules_of_sections(cfg, splits), *rules]:
        value, (parent, _, key) = value_of(cfg, name), name.rpartition('.')
        is_none = value is None and key in NEVER_NONE and key in (value_of(cfg, parent) or ())
        if (is_none or value is not None) and not is_allowed(value):
            raise ConfigError(f'{name} is {value!r}: allowed is {allowed}')
    problem = mode_problem(class_of(cfg.model, MODELS), cfg.model.get('test_cfg'))
    if problem:
        raise ConfigError(problem)
    _check_ends(cfg, splits)
    for problem in compare_reduce_zero_label(cfg, splits):
        if problem.level == 'error':
            raise ConfigError(f'{problem.path} {problem.message}')
        print_log(f'{problem.path} {problem.message}', logger='current', level=logging.WARNING)
    for line in doubts(cfg, splits, parts):
        print_log(line, logger='current', level=logging.WARNING)


def _leave_out_none(cfg: Config) -> None:
    """Takes out the sections, and the hooks that are none of MMEngine's defaults, that are None: as if not set."""
    for name in ('default_hooks', *FREE):
        if name in cfg and cfg[name] is None:
            cfg.pop(name)
    hooks = cfg.get('default_hooks')
    for name in [name for name, hook in hooks.items() if hook is None] if isinstance(hooks, dict) else ():
        if name not in HOOK_NAMES - {'visualization'}:
            hooks.pop(name)


def _check_part(part: Part) -> None:
    name, settings = part.name, part.settings
    is_dict, is_value = isinstance(settings, dict), isinstance(settings, (str, int, float, list, tuple))
    if not is_dict and not callable(settings) and repr(settings).startswith('<'):
        raise ConfigError(f'{name} is {settings!r:.100}, and MMEngine writes the config as text, which an object has '
                          f"not: give {name}=dict(type='{type_name(settings)}', ...)")
    if settings is None or not is_dict and not is_value or is_dict and '_scope_' in settings:
        return  # left out, an object that is built already, or with names of another package
    if is_value or 'type' not in settings and part.default is None:
        parent, _, own = name.rpartition('.')
        hint = nearest(own, HOOK_NAMES - {own}) if parent == 'default_hooks' else ''
        raise ConfigError(f'{name} is {settings!r}, without a type{hint}: give {name}=dict(type=..., ...)')
    kind = class_of(settings, part.registry, part.default)
    if not callable(kind):
        known = sorted(set(names_of(part.registry)))
        raise ConfigError(f'{name}.type is {settings["type"]!r}, which is not known'
                          f'{nearest(type_name(settings), known)}: if it is of another package, name that in '
                          f'custom_imports. Known are {textwrap.shorten(", ".join(known), 300, placeholder=" ...")}')
    if name.endswith(LAYERS):  # mmcv has settings of its own beside those of the class
        return
    known, are_all = accepted(kind)
    names = {*known, *part.others} - {'params', 'runner', 'self'}
    refuse_unknown(name, {key: value for key, value in settings.items() if key != 'type'}, names, are_all)
    for key, value in settings.items():
        if isinstance(value, str) and key in known and takes_numbers_only(known[key]):
            raise ConfigError(f'{name}.{key} is {value!r}: allowed are numbers, such as its default '
                              f'{known[key].default!r}' if known[key].default is not inspect.Parameter.empty else
                              f'{name}.{key} is {value!r}: allowed are numbers')


def check_views(cfg: Config, needed: bool) -> None:
    """Checks ``tta_pipeline`` and ``tta_model``; only warns of what is wrong with them where they are not used."""
    try:
        for part in parts_of_views(cfg):
            _check_part(part)
    except ConfigError as error:
        if needed:
            raise
        print_log(f'{error} (which --protocol ms would need)', logger='current', level=logging.WARNING)


def _check_order(parts: Sequence[Part]) -> None:
    """Labels that a training loads after the images were cropped or turned are those of other pixels."""
    first: Dict[str, Part] = {}
    for part in parts:
        pipeline = part.name.partition('.pipeline.')[0]
        if part.registry is TRANSFORMS and is_a(part.settings, TRANSFORMS, *MOVING, *LABEL_LOADERS):
            moving = first.setdefault(pipeline, part)
            if moving is not part and is_a(part.settings, TRANSFORMS, *LABEL_LOADERS) and not is_a(
                    moving.settings, TRANSFORMS, *LABEL_LOADERS) and pipeline.startswith('train'):
                raise ConfigError(f'{moving.name}, {type_name(moving.settings)}, changes images before {part.name}, '
                                  f'{type_name(part.settings)}, loads their labels, which would not be changed with '
                                  f'them: put {type_name(part.settings)} before it')


def _check_free(cfg: Config, splits: Sequence[str]) -> None:
    """The dicts that are no class's."""
    for name, known in FREE.items():
        refuse_unknown(name, cfg.get(name) or {}, known)
    environment = cfg.get('env_cfg') or {}
    refuse_unknown('env_cfg.mp_cfg', environment.get('mp_cfg') or {}, ('mp_start_method', 'opencv_num_threads'))
    refuse_unknown('env_cfg.dist_cfg', environment.get('dist_cfg') or {},
                   ('backend', 'timeout', 'init_backend', 'port', 'init_method'), False)
    model = class_of(cfg.model, MODELS)
    heads = [class_of(head, MODELS) for _, head in numbered('', cfg.model.get('decode_head')) if isinstance(head, dict)]
    refuse_unknown('model.test_cfg', cfg.model.get('test_cfg') or {}, TEST_CFG, all(map(is_stock, [model, *heads])))
    if 'train' in splits:
        wise = cfg.optim_wrapper.get('paramwise_cfg') or {}
        constructor = class_of(dict(type=cfg.optim_wrapper.get('constructor', DefaultOptimWrapperConstructor)),
                               OPTIM_WRAPPER_CONSTRUCTORS)
        refuse_unknown('optim_wrapper.paramwise_cfg', wise, PARAMWISE, is_stock(constructor))
        refuse_unknown('optim_wrapper.clip_grad', cfg.optim_wrapper.get('clip_grad') or {}, CLIP)
        keys = wise.get('custom_keys')
        if isinstance(keys, dict):  # MMEngine refuses others
            wise['custom_keys'] = keys = {key: settings for name, found in keys.items()
                                          for key, settings in _joined(name, found)}
        for key, settings in keys.items() if isinstance(keys, dict) else ():
            refuse_unknown(f'optim_wrapper.paramwise_cfg.custom_keys.{key}', settings, MULTIPLIERS, False)
    for split in splits:
        for name, dataset in find_datasets(cfg, split):
            kind = class_of(dataset, DATASETS)
            known = {'img_path', 'seg_map_path', 'img_path2', 'depth_map_path'}
            if is_a(dataset, DATASETS, BaseSegDataset):
                refuse_unknown(f'{name}.data_prefix', dataset.get('data_prefix') or {}, known, is_stock(kind))
                refuse_unknown(f'{name}.metainfo', dataset.get('metainfo') or {}, ('classes', 'palette'), False)
                own, given = kind.METAINFO.get('classes') or (), (dataset.get('metainfo') or {}).get('classes')
                for one in given if own and is_stock(kind) and isinstance(given, (list, tuple)) else ():
                    if one not in own:
                        known = textwrap.shorten(', '.join(own), 300, placeholder=' ...')
                        raise ConfigError(f'{name}.metainfo.classes has {one!r}{nearest(one, own)}: allowed are those '
                                          f'of {type_name(dataset)}, {known}')


def _joined(name: str, found: Any) -> Iterator[Tuple[str, Any]]:
    """The keys of ``custom_keys`` with their settings: one with dots is nested dicts by ``--cfg-options``."""
    inner = {key for key in found if isinstance(found[key], dict)} if isinstance(found, dict) else ()
    for key in inner:
        yield from _joined(f'{name}.{key}', found[key])
    if len(inner) == 0 or len(inner) < len(found):
        yield name, {key: value for key, value in found.items() if key not in inner} if inner else found


def _are_iou_metrics(value: Any) -> bool:
    found = value if isinstance(value, (list, tuple)) else [value]
    return bool(found) and all(one in IOU_METRICS for one in found)


def _values(cfg: Config, splits: Sequence[str]) -> Iterator[Tuple[str, Callable[[Any], bool], str]]:
    """Settings of which only some values mean something: the name, whether a value does, and which do."""
    count = (is_whole, 'a whole number from 1')
    yield 'randomness.seed', lambda seed: is_whole(seed, 0) and seed < 2**32, f'a whole number from 0 to {2**32 - 1}'
    for name in ('randomness.deterministic', 'randomness.diff_rank_seed', 'auto_scale_lr.enable'):
        yield name, lambda value: isinstance(value, bool), 'True or False'
    yield 'model.backbone.drop_path_rate', lambda rate: is_number(rate) and 0 <= rate < 1, 'from 0 to below 1'
    heads = numbered('model.decode_head', cfg.model.get('decode_head'))
    for name, head in [(name, head) for name, head in heads if isinstance(head, dict)]:
        own_loss = getattr(class_of(head, MODELS), 'loss_by_feat', None) is not BaseDecodeHead.loss_by_feat
        classes = None if own_loss else head.get('num_classes')
        counts = classes, head.get('out_channels')
        for loss, _ in numbered(f'{name}.loss_decode', head.get('loss_decode')) if classes else ():
            yield (f'{loss}.class_weight', lambda given, counts=counts: isinstance(given, str) or (
                isinstance(given, (list, tuple)) and len(given) in counts), f'one number for each of {classes} classes')
    for split in splits:
        for name, metric in numbered(f'{split}_evaluator', cfg.get(f'{split}_evaluator')):
            if isinstance(metric, dict) and is_a(metric, METRICS, IoUMetric):
                yield (f'{name}.iou_metrics', _are_iou_metrics, f'one or more of {", ".join(IOU_METRICS)}')
        yield (f'{split}_dataloader.batch_size', *count)
        yield f'{split}_dataloader.num_workers', lambda number: is_whole(number, 0), 'a whole number from 0'
    if 'train' in splits:
        for key in ('max_iters', 'max_epochs', 'val_interval'):
            yield (f'train_cfg.{key}', *count)
        yield 'train_cfg.val_begin', lambda begin: is_whole(begin, 0), 'a whole number from 0'
        yield 'optim_wrapper.optimizer.lr', lambda lr: is_number(lr) and 0 < lr < float('inf'), 'a number above 0'
        yield ('optim_wrapper.optimizer.weight_decay', lambda decay: is_number(decay) and decay >= 0,
               'a number from 0')
        yield 'optim_wrapper.clip_grad.max_norm', lambda norm: is_number(norm) and norm > 0, 'a number above 0'
        yield ('optim_wrapper.accumulative_counts', *count)
        yield ('auto_scale_lr.base_batch_size', *count)
        for name, hook in hooks_of(cfg):
            if isinstance(hook, dict) and is_stock(class_of(hook, HOOKS)):
                yield (f'{name}.interval', lambda number: number == -1 or is_whole(number),
                       'a whole number from 1, or -1 for never')


def _check_ends(cfg: Config, splits: Sequence[str]) -> None:
    """A loop over all of the data never ends with a sampler that never does."""
    for split in splits:
        sampler, loop = cfg[f'{split}_dataloader'].get('sampler'), cfg.get(f'{split}_cfg') or {}
        if not isinstance(sampler, dict) or not is_a(sampler, DATA_SAMPLERS, InfiniteSampler):
            continue
        kind = class_of(loop, LOOPS, EpochBasedTrainLoop if loop.get('by_epoch') else IterBasedTrainLoop)
        fix = f"set {split}_dataloader.sampler=dict(type='DefaultSampler', shuffle={split == 'train'}, _delete_=True)"
        if split != 'train':
            raise ConfigError(f'{split}_dataloader.sampler.type is {type_name(sampler)}, which never ends, so that the '
                              f'evaluation would not either: {fix}')
        if inspect.isclass(kind) and issubclass(kind, EpochBasedTrainLoop):
            raise ConfigError(f'train_dataloader.sampler.type is {type_name(sampler)}, which never ends, so that no '
                              f'epoch of {kind.__name__} would: {fix}, or count iterations, train_cfg=dict('
                              "type='IterBasedTrainLoop', max_iters=...)")
