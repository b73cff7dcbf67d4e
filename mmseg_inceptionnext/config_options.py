"""Puts settings from the command line into a config, where they have an effect, or says where that would be."""
import ast
import copy
import difflib
import inspect
import logging
import os.path as osp
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from .errors import ConfigError
from .parts import SPLITS, find_datasets

# The names at the top of a config that anything reads; all others are variables, from which parts were made.
READ = {*inspect.signature(Runner.__init__).parameters, 'runner_type', 'tta_model', 'tta_pipeline', 'custom_imports',
        'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'activation_checkpointing', 'efficient_conv_bn_eval',
        'compile'} - {'self', 'cfg'}
# Names of MMSegmentation 0.x, which nothing reads any more, and those of today.
OF_BEFORE = dict(
    optimizer=['optim_wrapper.optimizer'], optimizer_config=['optim_wrapper'], lr_config=['param_scheduler'],
    runner=['train_cfg'], evaluation=['val_evaluator', 'train_cfg.val_interval'], data=['train_dataloader'],
    checkpoint_config=['default_hooks.checkpoint'], log_config=['default_hooks.logger'], fp16=['--amp'],
    dist_params=['env_cfg.dist_cfg'], total_iters=['train_cfg.max_iters'], seed=['randomness.seed'])
ELSEWHERE = dict(launcher='--launcher', custom_imports='the config file')


def apply_options(cfg: Config, options: dict) -> None:
    """Merges options, by dotted name, into a config.

    An option of a variable, such as ``norm_cfg.type`` or ``train_pipeline.4.crop_size``, also changes every part of
    the config that was made from it: a container wherever an equal one stands, a number where it has the same name.
    ``data_root`` moves the data sets.

    Raises:
        ConfigError: if an option does not fit the config, or would change nothing that is read.
    """
    options = dict(options)
    if 'data_root' in options:  # a folder named 2016 may come as a number
        _move_datasets(cfg, str(options.pop('data_root')))
    variables = _variables(cfg)
    for key in options:
        top = key.split('.')[0]
        if top in ELSEWHERE:
            raise ConfigError(f'--cfg-options {key}: it was read already; use {ELSEWHERE[top]}')
        if top not in {*cfg, *READ}:
            raise ConfigError(f'--cfg-options {key}: the config has no {top}, and nothing would read it; '
                              f'{_advice(cfg, key)}')
    for name in variables:
        own = {key: value for key, value in options.items() if key.split('.')[0] == name}
        if own:
            old = copy.deepcopy(cfg[name])
            _merge(cfg, own)
            if isinstance(old, tuple) and isinstance(cfg[name], list):  # as the command line writes it
                cfg[name] = tuple(cfg[name])
            _replace(cfg, name, old, next(iter(own)))
    _merge(cfg, {key: value for key, value in options.items() if key.split('.')[0] not in variables})


def warn_of_variables(path: str, cfg: Config) -> None:
    """Warns of what a config file sets in vain: variables from which its bases made parts before, and misspelt names.

    Args:
        path: the config file, in Python.
        cfg: what came out of it.
    """
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    assigned = {target.id for node in tree.body if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Name)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    names = sorted((assigned - used) & _variables(cfg))
    bases = Config._get_base_files(path) if '_base_' in assigned else []
    bases = [Config._get_cfg_path(base, path)[0] for base in bases]
    bases = [base for base in bases if osp.isfile(base)]  # those with {{ fileDirname }} are left to MMEngine
    old = {base: Config.fromfile(base) for base in bases} if names else {}
    for name in names:
        if list(_places(cfg, name, cfg[name])):
            continue
        for base in (base for base in old if name in old[base] and old[base][name] != cfg[name]):
            kept = [place for place, _, _ in _places(cfg, name, old[base][name])]
            if kept:
                _warn(f'{path} sets {name}, but {", ".join(kept[:5])} were made in {osp.relpath(base)} from what it '
                      f'was there, and keep that: set these in {path}, too')
        near = OF_BEFORE.get(name) or difflib.get_close_matches(
            name, READ - {name}, n=1, cutoff=0.85) or _same_leaves(cfg, name)
        if 'model' in assigned and '_base_' not in assigned:  # a whole config: what stands beside it was of its bases
            near = [other for other in near if other.partition('.')[0] not in cfg]
        if near and not any(name in base for base in old.values()):
            _warn(f'{path} sets {name}, which nothing reads: did you mean {" or ".join(near)}?')
    for base in (base for base in bases if base.endswith('.py')):
        warn_of_variables(base, cfg)


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _variables(cfg: Config) -> set:
    unread = {'data_preprocessor'} if 'data_preprocessor' in (cfg.get('model') or {}) else set()
    return {name for name in cfg if name not in READ or name in unread}


def _merge(cfg: Config, options: dict) -> None:
    try:
        for key in options:
            _check_path(cfg, key)
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        key = next((key for key in options if key in str(error)), next(iter(options)))
        raise ConfigError(f'--cfg-options {key}={options[key]!r} does not fit the config: {error.args[0]}; '
                          f'{_advice(cfg, key)}') from error


def _check_path(cfg: Config, key: str) -> None:
    """Raises a KeyError for a name without letters, and for a number where nothing is numbered."""
    found: Any = cfg
    for part in key.split('.'):
        if not part or isinstance(found, dict) and part.isdecimal() and part not in found:
            raise KeyError(f'{key} has {part!r} where a name is expected')
        found = found.get(part) if isinstance(found, (dict, Config)) else None


def all_places(cfg: Config) -> Iterator[Tuple[str, Any, Any]]:
    """All that stands in the parts that are read: the dotted name, and its container and key."""
    waiting = [(key, cfg, key) for key in set(cfg) - _variables(cfg)]
    while waiting:
        place, parent, key = waiting.pop()
        yield place, parent, key
        found = parent[key]
        inner = found if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
        waiting += [(f'{place}.{each}', found, each) for each in inner]


def _places(cfg: Config, name: str, value: Any) -> List[Tuple[str, Any, Any]]:
    """Those that hold a variable's value, not one within another."""
    by_value = isinstance(value, (dict, list, tuple, str)) and bool(value)
    found = [(place, parent, key) for place, parent, key in all_places(cfg)
             if type(parent[key]) is type(value) and parent[key] == value and (by_value or key == name)]
    names = {place for place, _, _ in found}
    return [each for each in found if not any(each[0].startswith(f'{name}.') for name in names)]


def _replace(cfg: Config, name: str, old: Any, key: str) -> None:
    """Puts a variable's new value wherever the old one stands; raises a ConfigError if that is nowhere."""
    places = list(_places(cfg, name, old))
    for _, parent, inner in places:
        parent[inner] = copy.deepcopy(cfg[name])
    is_number = isinstance(old, (int, float)) and not isinstance(old, bool) and old > 2
    others = [place for place, parent, inner in all_places(cfg) if is_number and parent[inner] == old]
    if places and others:
        _warn(f'--cfg-options {key} reached {places[0][0]}; still {old}: {", ".join(others[:5])}; set these, too, if '
              f'they were made from {name}')
    elif not places and any(not module.startswith('mmseg_inceptionnext') for module in _imports(cfg)):
        _warn(f'--cfg-options {key}: no part of the config holds {name}; only code of your own can read it')
    elif not places:
        raise ConfigError(f'--cfg-options {key}: no part of the config holds the value of {name}, so that it would '
                          f'change nothing; {_advice(cfg, key)}')


def _imports(cfg: Config) -> List[str]:
    modules = (cfg.get('custom_imports') or {}).get('imports') or []
    return [modules] if isinstance(modules, str) else list(modules)


def _move_datasets(cfg: Config, root: str) -> None:
    """Moves the data sets that stand at ``data_root`` of the config, or all, if they stand at one place."""
    found = {name: dataset for split in SPLITS if cfg.get(f'{split}_dataloader')
             for name, dataset in find_datasets(cfg, split)}
    common = cfg.get('data_root')
    moved = [dataset for dataset in found.values() if common is not None and dataset.get('data_root') == common]
    if not moved and len({dataset.get('data_root') for dataset in found.values()}) > 1:
        raise ConfigError(f'--data-root {root}: the data sets of the config stand at different places; set '
                          f'{", ".join(f"{name}.data_root" for name in found)} by --cfg-options')
    for dataset in moved or found.values():
        dataset['data_root'] = root
    cfg.data_root = root


def _same_leaves(cfg: Config, key: str) -> List[str]:
    """Names that are read and end as one that is not, the shortest first."""
    last = key.rpartition('.')[2]
    return sorted((place for place, _, _ in all_places(cfg) if not last.isdecimal() and place != key
                   and place.rpartition('.')[2] == last), key=lambda name: (name.count('.'), name))[:3]


def _advice(cfg: Config, key: str) -> str:
    """The names nearest to one that is not there."""
    top, _, rest = key.partition('.')
    names = [place for place, _, _ in all_places(cfg)]
    known = [name for name in {*names, *_variables(cfg), *READ} if name != key]
    near = _same_leaves(cfg, key) or difflib.get_close_matches(key, known, n=2) or [
        f'{name}.{rest}'.rstrip('.') for name in difflib.get_close_matches(top, [*cfg, *READ], n=2) if name != top]
    return f'did you mean {" or ".join(near)}?' if near else f'allowed are {", ".join(sorted({*cfg, *READ}))}'
