"""Reads a config the way every tool of this package does."""
import os
import os.path as osp
import sysconfig
import tempfile
import traceback
from typing import Optional, Tuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn

from mmseg_inceptionnext.config_options import apply_options, warn_of_variables
from mmseg_inceptionnext.errors import CheckpointError, ConfigError, UserError
from mmseg_inceptionnext.models.sync_bn import without_sync_bn
from mmseg_inceptionnext.parts import SPLITS, class_of, find_datasets, is_a

SUFFIXES = ('.py', '.json', '.yaml', '.yml')
NOT_THE_USERS = ('<', osp.dirname(__file__), *(sysconfig.get_path(kind) for kind in ('stdlib', 'purelib', 'platlib')))


def build_model(cfg: Config, source: str) -> nn.Module:
    """Builds the model of a config, with each SyncBN as a BatchNorm, or raises a ConfigError that names ``source``."""
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

    Data loaders without workers lose ``persistent_workers``, which PyTorch refuses there.

    Args:
        path: the config file.
        cfg_options: values that override the file's, by dotted name, see :func:`apply_options`.
        work_dir: folder for logs and checkpoints. Default: the config's own, else ``work_dirs/CONFIG_NAME``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ConfigError: if there is no such file, it is no config, an option has no effect, or the folder is a file.
    """
    cfg = _read(path)
    if cfg_options:
        apply_options(cfg, cfg_options)
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and loader.get('persistent_workers') and not loader.get('num_workers'):
            loader['persistent_workers'] = False
    cfg.launcher = launcher
    name = osp.splitext(osp.basename(path))[0]
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or osp.join('work_dirs', name))  # a folder 2016 is a number
    if osp.exists(cfg.work_dir) and not osp.isdir(cfg.work_dir):
        raise ConfigError(f'--work-dir {cfg.work_dir} is a file; give a folder')
    return cfg


def make_writable(folder: str, option: str) -> None:
    """Makes a folder, or raises a ConfigError that names its ``option`` if files cannot be written there."""
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
        cfg = Config.fromfile(path)
        if path.endswith('.py'):
            warn_of_variables(path, cfg)
        return cfg
    except Exception as error:  # a config is a program, which may do anything, and so are those of its custom_imports
        place, cause = _where(error, path)
        raise ConfigError(f'{path} cannot be read: {type(cause).__name__} in {place}: '
                          f'{" ".join(str(cause).split())}') from error


def _where(error: BaseException, default: str) -> Tuple[str, BaseException]:
    """File and line of the user's own that an error comes from, and the first of the errors that led to it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f'{error.filename}, line {error.lineno}', error
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THE_USERS)]
    return f'{own[-1].filename}, line {own[-1].lineno}' if own else default, error


def metainfo_of(cfg: Config, split: str) -> dict:
    """What the data set of a split says of itself, such as ``classes`` and ``palette``; none of its files is read.

    Raises:
        ConfigError: if it cannot be built.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return dataset_metainfo(*next(find_datasets(cfg, split)))


def dataset_metainfo(name: str, dataset: dict) -> dict:
    """:func:`metainfo_of` one of :func:`find_datasets`; nothing of a class that is no ``BaseDataset`` of MMEngine."""
    if class_of(dataset, DATASETS) is not None and not is_a(dataset, DATASETS, BaseDataset):
        return {}
    try:
        return DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).metainfo
    except UserError:
        raise
    except Exception as error:  # every class has its own errors for settings that it does not know
        text = str(error) or traceback.extract_tb(error.__traceback__)[-1].line  # an assert without a message
        raise ConfigError(f'{name} cannot be built: {type(error).__name__}: {text}') from error
