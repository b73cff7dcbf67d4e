"""Reads checkpoints as data: tensors, numbers, text and the few classes that MMEngine itself saves. Never as code."""
import _codecs
import json
import os.path as osp
import pickle
import re
import tarfile
import types
from _compat_pickle import IMPORT_MAPPING
from collections import Counter, OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Dict, Iterator, Optional

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from packaging.version import Version
from safetensors import safe_open

# From 2.6 on torch.load(weights_only=True) can be told which classes to allow, and under which names.
TAKES_ALLOWED = Version(torch.__version__) >= Version('2.6')

_trust: ContextVar[bool] = ContextVar('trust_checkpoint', default=False)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be had, read or used; the message names the file and the fix."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than data, and nobody said that it is to be trusted."""


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Within it, checkpoints are read as full pickles if ``trust`` is true."""
    token = _trust.set(trust)
    try:
        yield
    finally:
        _trust.reset(token)


def is_trusting() -> bool:
    """Whether the caller stands in ``trusting(True)``."""
    return _trust.get()


def read_checkpoint(path: str, map_location='cpu') -> dict:
    """Reads a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Args:
        path: a file on disk.
        map_location: device for the tensors, as in ``torch.load``.

    Returns:
        What was saved; for ``.safetensors`` a dict with ``state_dict`` and ``meta``.

    Raises:
        UnsafeCheckpointError: if it holds anything but data and the caller does not stand in :func:`trusting`.
        CheckpointError: if there is no such file, or it is damaged or no checkpoint.
    """
    if not osp.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        if path.endswith('.safetensors'):
            return _read_safetensors(path, map_location)
        if tarfile.is_tarfile(path):
            raise CheckpointError(f'{path} is a tar archive, as PyTorch wrote before 0.2; load it elsewhere and save '
                                  'it anew')
        if _is_program(path):
            raise CheckpointError(f'{path} is a TorchScript program, not a checkpoint: save the state_dict() of the '
                                  'model instead')
        if is_trusting():
            return torch.load(path, map_location=map_location, weights_only=False)
        return _read_as_data(path, map_location)
    except CheckpointError:
        raise
    except Exception as error:  # a file of garbage can raise anything, from struct.error to UnicodeDecodeError
        refused = _refused_name(error)
        if refused:
            raise UnsafeCheckpointError(
                f'{path} holds {refused}, which is code to run and not data; nothing of it was run or loaded. If you '
                'trust whoever made the file, add --trust-checkpoint (in Python: trust_checkpoint=True)') from error
        reason = f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0][:160]}'
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own text is an advice to switch the safety off
            reason = 'no file that torch.save wrote, or not all of it'
        raise CheckpointError(f'{path} is damaged or no checkpoint ({reason})') from error


def _read_safetensors(path: str, map_location) -> dict:
    with safe_open(path, framework='pt', device='cpu') as file:
        tensors = {key: file.get_tensor(key).to(map_location or 'cpu') for key in file.keys()}
        meta = json.loads((file.metadata() or {}).get('meta', '{}'))
    return dict(state_dict=tensors, meta=meta)


def _is_program(path: str) -> bool:
    """Whether PyTorch would take the file for TorchScript, asked of the reader that PyTorch itself uses."""
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\x03\x04':
            return False
    return 'constants.pkl' in torch._C.PyTorchFileReader(path).get_all_records()


def _read_as_data(path: str, map_location) -> dict:
    if TAKES_ALLOWED:
        with torch.serialization.safe_globals([(value, name) for name, value in ALLOWED.items()]):
            return torch.load(path, map_location=map_location, weights_only=True)
    return torch.load(path, map_location=map_location, pickle_module=_restricted_pickle())


def _known_attribute(owner, name: str):
    """Stands for ``getattr`` in a pickle: so MMEngine refers to the statistics of its message hub's buffers, and to the
    curves of one scheduler."""
    if (owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean')
            or owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear')):
        return getattr(owner, name)
    raise pickle.UnpicklingError('GLOBAL builtins.getattr')


def _allowed() -> Dict[str, object]:
    """What a checkpoint of MMEngine refers to, by the names that pickles of NumPy 1 and 2 give it."""
    functions = dict(_reconstruct=np.empty(0).__reduce__()[0], scalar=np.float64(0).__reduce__()[0])
    allowed = {f'{package}.multiarray.{name}': function
               for package in ('numpy.core', 'numpy._core') for name, function in functions.items()}
    allowed.update({'numpy.ndarray': np.ndarray, 'numpy.dtype': np.dtype, 'builtins.slice': slice,
                    'builtins.getattr': _known_attribute,
                    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
                    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': OneCycleParamScheduler})
    for kind in np.typecodes['All']:
        dtype = type(np.dtype(kind))
        allowed[f'{dtype.__module__}.{dtype.__qualname__}'] = dtype
    return allowed


ALLOWED = _allowed()


def _refused_name(error: Exception) -> Optional[str]:
    """The class or function that stopped the reading, out of our own error or that of ``weights_only=True``."""
    found = re.search(r"(?:GLOBAL|but got) (?:<class ')?([\w.]+)", str(error))
    if not found or not isinstance(error, pickle.UnpicklingError):
        return None
    return _today(found.group(1) if '.' in found.group(1) else f'builtins.{found.group(1)}')


def _today(name: str) -> str:
    """A name as Python 3 has it; pickles name the modules of Python 2, such as ``__builtin__``."""
    module, _, attribute = name.rpartition('.')
    return f'{IMPORT_MAPPING.get(module, module)}.{attribute}'


def _restricted_pickle() -> types.SimpleNamespace:
    """The pickle module of a torch that cannot be told what to allow: it finds the allowed names only."""
    names = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter')
    found = {**{f'torch._utils.{name}': getattr(torch._utils, name) for name in names},
             **{f'torch.{name}': value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
             'torch.Size': torch.Size, 'torch.device': torch.device, 'torch.Tensor': torch.Tensor,
             'torch.nn.parameter.Parameter': torch.nn.Parameter, 'builtins.set': set, 'builtins.complex': complex,
             '_codecs.encode': _codecs.encode, 'collections.OrderedDict': OrderedDict,
             'collections.Counter': Counter, **ALLOWED}

    class Unpickler(pickle._Unpickler):  # the one in Python: its steps can be overridden
        dispatch = dict(pickle._Unpickler.dispatch)

        def find_class(self, module: str, name: str):
            name = _today(f'{module}.{name}')
            if name not in found:
                raise pickle.UnpicklingError(f'GLOBAL {name}')
            return found[name]

        def load_build(self) -> None:
            """Fills an object; a function or a class would be changed for the whole process."""
            kind = type(self.stack[-2])
            if not issubclass(kind, (np.ndarray, np.dtype, HistoryBuffer, OrderedDict, torch.nn.Parameter)):
                raise pickle.UnpicklingError(f'GLOBAL {kind.__module__}.{kind.__qualname__}')
            super().load_build()

        def load_binpersid(self) -> None:
            """Finds a tensor's numbers; PyTorch's old format knows source code in their place."""
            if self.stack[-1][0] != 'storage':
                raise pickle.UnpicklingError('GLOBAL torch.nn.modules (source code)')
            super().load_binpersid()

        def load_persid(self) -> None:
            raise pickle.UnpicklingError('a persistent id as text')

        dispatch[pickle.BUILD[0]] = load_build
        dispatch[pickle.BINPERSID[0]] = load_binpersid
        dispatch[pickle.PERSID[0]] = load_persid

    def load(file, **kwargs):
        return Unpickler(file, **kwargs).load()

    return types.SimpleNamespace(
        Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError, __name__='restricted')
