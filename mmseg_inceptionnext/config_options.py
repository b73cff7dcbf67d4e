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
        if key.split('.')[0] not in {*cfg, *READ}:
            raise ConfigError(f'--cfg-options {key}: the config has no {key.split(".")[0]}, and nothing would read it; '
                              f'{_advice(cfg, key)}')
    for name in variables:
        own = {key: value for key, value in options.items() if key.split('.')[0] == name}
        if own:
            old = copy.deepcopy(cfg[name])
            _merge(cfg, own)
            if isinstance(old, tuple) and isinstance(cfg[name], list):  # as the command line writes it
                cfg[name] = tuple(cfg[name])
            if not _replace(cfg, name, old, cfg[name]):
                raise ConfigError(f'--cfg-options {next(iter(own))}: {name} is a variable from which nothing in the '
                                  f'config is made, so that it would change nothing; {_advice(cfg, next(iter(own)))}')
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
    for name in names:
        near = difflib.get_close_matches(name, READ, n=1, cutoff=0.85)
        if near:
            print_log(f'{path} sets {name}, which nothing reads: did you mean {near[0]}?', logger='current',
                      level=logging.WARNING)
    for base in Config._get_base_files(path) if '_base_' in assigned else ():
        base = Config._get_cfg_path(base, path)[0]
        old = Config.fromfile(base) if names else {}
        for name in names:
            kept = list(_places(cfg, name, old[name])) if name in old and old[name] != cfg[name] else []
            if kept:
                print_log(f'{path} sets {name}, but {", ".join(place for place, _, _ in kept[:5])} were made in '
                          f'{osp.relpath(base)} from what it was there, and keep that: set these in {path}, too',
                          logger='current', level=logging.WARNING)
        if base.endswith('.py'):
            warn_of_variables(base, cfg)


def _variables(cfg: Config) -> set:
    unread = {'data_preprocessor'} if 'data_preprocessor' in (cfg.get('model') or {}) else set()
    return {name for name in cfg if name not in READ or name in unread}


def _merge(cfg: Config, options: dict) -> None:
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ConfigError(f'--cfg-options {key}={value!r} does not fit the config: {error.args[0]}; '
                              f'{_advice(cfg, key)}') from error


def _places(cfg: Config, name: str, value: Any) -> Iterator[Tuple[str, Any, Any]]:
    """Where the parts that are read hold a variable's value: the dotted name, and its container and key."""
    by_value = isinstance(value, (dict, list, tuple, str)) and bool(value)
    waiting = [(key, cfg, key) for key in set(cfg) - _variables(cfg)]
    while waiting:
        place, parent, key = waiting.pop()
        found = parent[key]
        if type(found) is type(value) and found == value and (by_value or key == name):
            yield place, parent, key
        elif isinstance(found, dict):
            waiting += [(f'{place}.{inner}', found, inner) for inner in found]
        elif isinstance(found, list):
            waiting += [(f'{place}.{i}', found, i) for i in range(len(found))]


def _replace(cfg: Config, name: str, old: Any, new: Any) -> bool:
    """Puts a variable's new value wherever the old one stands; says whether there is such a place."""
    places = list(_places(cfg, name, old))
    for _, parent, key in places:
        parent[key] = copy.deepcopy(new)
    return bool(places)


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


def _advice(cfg: Config, key: str) -> str:
    """The names nearest to one that is not there."""
    names = [*_variables(cfg), *READ]
    waiting: List[Tuple[str, Any]] = [(name, cfg[name]) for name in set(cfg) - _variables(cfg)]
    while waiting:
        name, found = waiting.pop()
        names.append(name)
        pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        waiting += [(f'{name}.{inner}', value) for inner, value in pairs]
    last = key.rpartition('.')[2]
    same = sorted((name for name in names if not last.isdecimal() and name.rpartition('.')[2] == last),
                  key=lambda name: (name.count('.'), name))
    top, _, rest = key.partition('.')
    near = same[:3] or difflib.get_close_matches(key, names, n=2) or [
        f'{name}.{rest}'.rstrip('.') for name in difflib.get_close_matches(top, [*cfg, *READ], n=2)]
    return f'did you mean {" or ".join(near)}?' if near else f'allowed are {", ".join(sorted({*cfg, *READ}))}'
