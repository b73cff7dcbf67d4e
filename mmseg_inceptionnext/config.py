"""Reads a config the way every tool of this package does."""
import os
import os.path as osp
import tempfile
from typing import Optional

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn

from mmseg_inceptionnext.datasets.check.settings import (
    SPLITS,
)
from mmseg_inceptionnext.errors import CheckpointError, ConfigError
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def build_model(cfg: Config, source: str) -> nn.Module:
    """Builds the model of a config, with each SyncBN as a BatchNorm.

    Raises:
        ConfigError: if it cannot be built here; ``source`` names the config.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    try:
        return without_sync_bn(MODELS.build(cfg.model))
    except CheckpointError:
        raise
    except Exception as error:  # every class has its own errors for settings that it does not know
        raise ConfigError(f'the model of {source} cannot be built here: {type(error).__name__}: {error}') from error


def load_config(path: str,
                cfg_options: Optional[dict] = None,
                work_dir: Optional[str] = None,
                launcher: str = 'none') -> Config:
    """Reads a config file and applies what the command line says.

    ``data_root`` among the options also moves every dataset that stands at the config's own ``data_root``: MMEngine
    alone would change the name at the top of the file and none of the datasets. Data loaders without workers keep none:
    PyTorch refuses ``persistent_workers`` there.

    Args:
        path: the config file.
        cfg_options: values that override the file's, by dotted name.
        work_dir: folder for logs and checkpoints. Default: the config's own, else ``work_dirs/CONFIG_NAME``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ConfigError: if there is no such file, it is no config, or the folder is a file.
    """
    cfg = _read(path)
    if cfg_options:
        if 'data_root' in cfg_options:
            cfg_options['data_root'] = str(cfg_options['data_root'])  # a folder named 2016 comes as a number
            _move_datasets(list(cfg.values()), cfg.get('data_root'), cfg_options['data_root'])
        cfg.merge_from_dict(cfg_options)
    _keep_no_workers_where_none_are(cfg)
    cfg.launcher = launcher
    name = osp.splitext(osp.basename(path))[0]
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or osp.join('work_dirs', name))  # a folder 2016 is a number
    if osp.exists(cfg.work_dir) and not osp.isdir(cfg.work_dir):
        raise ConfigError(f'--work-dir {cfg.work_dir} is a file; give a folder')
    return cfg


def make_writable(folder: str, option: str) -> None:
    """Makes a folder unless it is there, and sees whether files can be written to it.

    Raises:
        ConfigError: if not; names ``option``, by which the folder was given.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f'{option} {folder} cannot be written: {error.strerror}; give another folder') from error


def _read(path: str) -> Config:
    if not osp.isfile(path):
        raise ConfigError(f'{path}: no such config file')
    if not path.endswith(SUFFIXES):
        raise ConfigError(f'{path}: a config is a file that ends in {", ".join(SUFFIXES[:-1])} or {SUFFIXES[-1]}')
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program, which may do anything
        raise ConfigError(f'{path} cannot be read: {type(error).__name__}: {" ".join(str(error).split())}. Look for it '
                          'in this file, in those of its _base_ and in the modules of its custom_imports') from error


def _keep_no_workers_where_none_are(cfg: Config) -> None:
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and loader.get('persistent_workers') and not loader.get('num_workers'):
            loader['persistent_workers'] = False


def metainfo_of(cfg: Config, dataset: dict) -> dict:
    """What a dataset says of itself, such as ``classes`` and ``palette``; none of its files is read."""
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).metainfo


def _move_datasets(node, old_root: Optional[str], new_root: str) -> None:
    if isinstance(node, dict):
        if old_root is not None and node.get('data_root') == old_root:
            node['data_root'] = new_root
        for value in node.values():
            _move_datasets(value, old_root, new_root)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _move_datasets(value, old_root, new_root)
