"""Reads checkpoints as data: tensors, numbers, text and the few classes that MMEngine itself saves. Never as code."""
import io
import json
import math
import os.path as osp
import pickle
import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import Counter, OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO, Callable, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors import safe_open
from torch import Tensor, nn

from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

# The steps of a pickle of protocol 2, which torch.save writes, by Python 3 or 2, and bytes as protocol 3 has them.
OPCODES = '''
    PROTO STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE BINSTRING
    SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT
    SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE NEWOBJ BUILD BINPERSID'''.split()

LFS_POINTER = b'version https://git-lfs'  # which begins what a clone without git-lfs has in a file's place
BYTE_ORDER = 'written on a machine with another byte order'

_trust: ContextVar[Optional[bool]] = ContextVar('trust_checkpoint', default=None)


class NotData(pickle.UnpicklingError):
    """Its text says what was found."""


def require(is_data: bool, found: str) -> None:
    if not is_data:
        raise NotData(found)


@contextmanager
def safe_checkpoints(trust: bool = False) -> Iterator[None]:
    """Within it, MMEngine reads checkpoints by :func:`load_source`: as data, or in full if ``trust`` is true."""
    token = _trust.set(trust)
    try:
        yield
    finally:
        _trust.reset(token)


def is_guarding() -> bool:
    """Whether the caller stands in :func:`safe_checkpoints`."""
    return _trust.get() is not None


def is_trusting() -> bool:
    """Whether the caller stands in ``safe_checkpoints(trust=True)``."""
    return bool(_trust.get())


def read_checkpoint(path: str) -> dict:
    """Reads a ``.pth``, ``.pt`` or ``.safetensors`` file; tensors come into the CPU's memory.

    What is read of a file in PyTorch's zip format is compared with its checksums. A ``.safetensors`` file gives a dict
    with ``state_dict`` and ``meta``.

    Raises:
        UnsafeCheckpointError: if it holds anything but data; not in ``safe_checkpoints(trust=True)``.
        CheckpointError: if there is no such file, or it is damaged or no checkpoint.
    """
    if not osp.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        with open(path, 'rb') as file:
            start = file.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                raise CheckpointError(f'{path} is a pointer of Git LFS, not the file itself; git lfs pull fetches that')
            if path.endswith('.safetensors'):
                return _read_safetensors(path)
            is_zip = start[:4] == b'PK\x03\x04'
            file.seek(0)
            if is_zip:
                check_zip(path, checksums=is_trusting())  # else each part's is compared when it is read
            if is_trusting():
                return torch.load(file, map_location='cpu', weights_only=False)
            return _read_zip(file) if is_zip else _read_legacy(file)
    except CheckpointError:
        raise
    except (MemoryError, OSError) as error:  # of this machine rather than of the file
        raise CheckpointError(f'{path} cannot be read here: {type(error).__name__}: {error}') from error
    except NotData as error:
        raise UnsafeCheckpointError(
            f'{path} holds {error}, which is not among the data that MMEngine saves and may be code to run; nothing of '
            'it was run or loaded. If you trust whoever made the file, add --trust-checkpoint (in Python: '
            'trust_checkpoint=True)') from error
    except Exception as error:  # a file of garbage can raise anything, from struct.error to UnicodeDecodeError
        reason = f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}'
        if isinstance(error, (pickle.UnpicklingError, LookupError, EOFError)):
            reason = 'no file that torch.save wrote, or not all of it'
        raise CheckpointError(f'{path} is damaged or no checkpoint ({reason})') from error


def check_zip(path: str, checksums: bool) -> None:
    """Looks at a checkpoint in PyTorch's zip format without loading it, and with ``checksums`` at every byte.

    Raises:
        CheckpointError: if it is none, would unpack to more than its size, or has a wrong checksum.
        OSError, zipfile.BadZipFile: if it cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        records, names = archive.infolist(), archive.namelist()
        if not any(name.endswith('/data.pkl') for name in names):
            raise CheckpointError(f'{path} is no checkpoint: a zip file that torch.save did not write')
        if any(name.endswith('/constants.pkl') for name in names):
            raise CheckpointError(f'{path} is a TorchScript program, not a checkpoint: save the state_dict() of the '
                                  'model instead')
        if any(record.compress_type != zipfile.ZIP_STORED for record in records) or (
                sum(record.file_size for record in records) > osp.getsize(path)):
            raise CheckpointError(f'{path} is no checkpoint: its parts are compressed or overlap, which torch.save '
                                  'never does')
        damaged = archive.testzip() if checksums else None
    if damaged:
        raise CheckpointError(f'{path} is damaged: the part {damaged} in it has another checksum')


def _read_safetensors(path: str) -> dict:
    with safe_open(path, framework='pt', device='cpu') as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        meta = json.loads((file.metadata() or {}).get('meta', '{}'))
    for key, value in tensors.items():
        if value.dtype not in STORED.values():  # others, of 8 bits, cannot even be asked whether they are finite
            raise CheckpointError(f'{path} cannot be used: {key:.80} holds {value.dtype}, with which nothing here '
                                  'computes; write its weights as float32')
    return dict(state_dict=tensors, meta=meta)


def _read_zip(file: BinaryIO) -> Any:
    """Through zipfile alone, which compares each part's checksum when it is read to its end."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        folder = next(name for name in names if name.endswith('/data.pkl'))[:-len('data.pkl')]
        if f'{folder}byteorder' in names and archive.read(f'{folder}byteorder') != sys.byteorder.encode():
            raise ValueError(BYTE_ORDER)

        def read(key: str, dtype: torch.dtype, count: int) -> Tensor:
            content = archive.read(f'{folder}data/{key}')
            storage = torch.empty(count, dtype=dtype) if len(content) == count * dtype.itemsize else torch.empty(0)
            storage.view(torch.uint8).numpy()[:] = np.frombuffer(content, np.uint8)
            return storage

        return _Unpickler(io.BytesIO(archive.read(f'{folder}data.pkl')), read).load()


def _read_legacy(file: BinaryIO) -> Any:
    """PyTorch's format before 1.6: some pickles, then the numbers of the tensors. It has no checksums."""
    size = osp.getsize(file.name)

    def reserve(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal size
        size -= count * dtype.itemsize
        if count < 0 or size < 0:
            raise ValueError('its tensors are larger than the file')
        return torch.empty(count, dtype=dtype)

    magic, version, system = (_Unpickler(file).load() for _ in range(3))
    if magic != torch.serialization.MAGIC_NUMBER or version != torch.serialization.PROTOCOL_VERSION:
        raise pickle.UnpicklingError
    if system['little_endian'] != (sys.byteorder == 'little'):
        raise ValueError(BYTE_ORDER)
    unpickler = _Unpickler(file, reserve)
    content = unpickler.load()
    for key in _Unpickler(file).load():
        numbers = unpickler.storages[key].view(torch.uint8).numpy()
        count = int.from_bytes(file.read(8), 'little')
        if count != len(unpickler.storages[key]) or file.readinto(memoryview(numbers)) != len(numbers):
            raise pickle.UnpicklingError
    return content


class _Unpickler(pickle._Unpickler):  # the one in Python: its steps can be overridden
    """Finds the allowed names only, calls and fills what is ours only, and knows the steps that torch.save writes.

    ``read_storage`` gives a tensor's numbers from its key, dtype and count.
    """

    def __init__(self, file: BinaryIO, read_storage: Optional[Callable] = None) -> None:
        super().__init__(file, encoding='utf-8')
        self.read_storage = read_storage
        self.storages: Dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f'{IMPORT_MAPPING.get(module, module)}.{name}'  # pickles name the modules of Python 2: __builtin__
        require(full in ALLOWED, full)
        return ALLOWED[full]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count, *view = pid
        require(kind == 'storage' and isinstance(dtype, torch.dtype) and self.read_storage is not None,
                'something else in the place of the numbers of a tensor')
        if key not in self.storages:
            self.storages[key] = self.read_storage(key, dtype, count)
        storage = self.storages[key]
        if storage.dtype != dtype:
            raise ValueError('the numbers of a tensor have two types')
        return storage if not view or view[0] is None else storage[view[0][1]:view[0][1] + view[0][2]]

    def load_proto(self) -> None:
        version = self.read(1)[0]
        if version > 3:
            raise ValueError(f'a pickle of protocol {version}: save it anew with that of torch.save, 2')

    def load_reduce(self) -> None:
        called = self.stack[-2]
        require(any(called is function for function in FUNCTIONS.values()), f'a call of {_name(called)}')
        super().load_reduce()

    def load_newobj(self) -> None:
        require(self.stack[-2:] == [HistoryBuffer, ()], f'an object of {_name(self.stack[-2])}')
        self.stack[-2:] = [HistoryBuffer()]

    def load_build(self) -> None:
        state, thing = self.stack.pop(), self.stack[-1]
        kind = np.dtype if isinstance(thing, np.dtype) else type(thing)
        require(kind in FILLED, f'a state for {kind.__name__}')
        FILLED[kind](thing, state)

    def load_setitem(self) -> None:
        _dict(self.stack[-3])
        _keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _dict(self.metastack[-1][-1])
        _keys(self.stack[::2])
        super().load_setitems()

    dispatch = {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in OPCODES}
    dispatch.update({
        pickle.PROTO[0]: load_proto, pickle.REDUCE[0]: load_reduce, pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems})


def _name(thing: Any) -> str:
    """Of a function or class, or the kind of anything else, whose own text may be of any length."""
    return f'{thing.__module__}.{thing.__qualname__}' if hasattr(thing, '__qualname__') else type(thing).__name__


def _dict(thing: Any) -> dict:
    require(isinstance(thing, dict), f'items for {type(thing).__name__}')
    return thing


def _keys(keys: Sequence) -> Sequence:
    """No nested tuples, of which a few bytes make trillions, which take for ever to compare."""
    for key in keys:
        require(isinstance(key, (str, int, float, type(None))), f'{type(key).__name__} as a key')
    return keys


def _tensor(storage: Tensor, offset: int, size: Tuple[int, ...], stride: Tuple[int, ...], *unused) -> Tensor:
    if math.prod(size) > len(storage):
        raise ValueError('a tensor is larger than the numbers that it is made from')
    storage.as_strided(size, stride, offset)  # raises if it goes beyond them, where set_ would make room
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped_storage(), offset, size, stride)


def _plain_tensor(rebuild: Callable, kind: type, arguments: tuple, *unused) -> Tensor:
    """A tensor that was saved with attributes, without those."""
    require(kind is Tensor and rebuild is _tensor, f'a tensor of {_name(kind)}')
    return _tensor(*arguments)


def _dtype(name: str, *unused) -> np.dtype:
    require(bool(re.fullmatch(r'[biufcSUO]\d+', name)), f'a NumPy dtype {name!r:.80}')
    return np.dtype(name)


def _check_dtype(dtype: np.dtype, state: tuple) -> None:
    """What a dtype is stands in its name; another state could make numbers into addresses."""
    require(state == dtype.__reduce__()[2], 'a NumPy dtype that is not what its name says')


def _fill_array(array: np.ndarray, state: tuple) -> None:
    _, shape, dtype, is_fortran, values = state
    count = math.prod(shape)
    fits = type(values) is list and len(values) == count if dtype.kind == 'O' else (
        type(values) is bytes and len(values) == count * dtype.itemsize)
    require(fits, f'an array of {dtype} with other values')
    array.__setstate__((1, tuple(shape), dtype, bool(is_fortran), values))


def _scalar(dtype: np.dtype, value: bytes) -> np.generic:
    require(dtype.kind != 'O' and len(value) == dtype.itemsize, f'a number of {dtype} with another value')
    return np.frombuffer(value, dtype)[0]


def _fill_history(buffer: HistoryBuffer, state: dict) -> None:
    """Without its table of statistics: it belongs to the class, and what is filled in there stays for all."""
    values, counts = state['_log_history'], state['_count_history']
    are_numbers = (type(part) is np.ndarray and part.ndim == 1 and part.dtype.kind in 'biuf'
                   for part in (values, counts))
    require(all(are_numbers) and len(values) == len(counts) and type(state['max_length']) is int,
            'a history of something else than numbers')
    buffer.__dict__.update(max_length=state['max_length'], _log_history=values, _count_history=counts)


def _fill_ordered(thing: OrderedDict, state: dict) -> None:
    require(set(_dict(state)) <= {'_metadata'}, 'attributes of an OrderedDict')
    thing.__dict__.update(state)  # versions of the modules, as state_dict() keeps them


def _ordered(pairs: Sequence = ()) -> OrderedDict:
    _keys([key for key, _ in pairs])
    return OrderedDict(pairs)


def _bytes(text: str, encoding: str) -> bytes:
    require(encoding == 'latin1', 'a text in another encoding than latin1')
    return text.encode('latin1')


def _known_attribute(owner: Any, name: str) -> Any:
    """Stands for ``getattr`` in a pickle: so MMEngine refers to the statistics of its message hub's buffers, and to the
    curves of one scheduler."""
    require(owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean')
            or owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear'), 'builtins.getattr')
    return getattr(owner, name)


# What a checkpoint of MMEngine calls and refers to, by the names that pickles give it; and how its objects are filled.
FUNCTIONS = {
    'torch._utils._rebuild_tensor': _tensor, 'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._tensor._rebuild_from_type_v2': _plain_tensor,
    'torch._utils._rebuild_parameter': lambda data, requires_grad, *unused: nn.Parameter(data, bool(requires_grad)),
    'torch.Size': torch.Size, 'torch.device': torch.device, 'numpy.dtype': _dtype,
    'collections.OrderedDict': _ordered, 'collections.Counter': lambda counts: Counter(_dict(counts)),
    'builtins.set': lambda values: set(_keys(values)), 'builtins.slice': slice, 'builtins.complex': complex,
    'builtins.getattr': _known_attribute, '_codecs.encode': _bytes,
    **{f'{package}.multiarray.{name}': function for package in ('numpy.core', 'numpy._core')  # NumPy 1 and 2
       for name, function in (('_reconstruct', lambda *unused: np.empty(0, np.int8)), ('scalar', _scalar))}}
STORED = dict(
    Double=torch.float64, Float=torch.float32, Half=torch.float16, BFloat16=torch.bfloat16, Long=torch.int64,
    Int=torch.int32, Short=torch.int16, Char=torch.int8, Byte=torch.uint8, Bool=torch.bool,
    ComplexFloat=torch.complex64, ComplexDouble=torch.complex128)
FILLED = {np.dtype: _check_dtype, np.ndarray: _fill_array, HistoryBuffer: _fill_history, OrderedDict: _fill_ordered}
ALLOWED = {
    **FUNCTIONS,
    'numpy.ndarray': np.ndarray, 'torch.Tensor': Tensor,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': OneCycleParamScheduler,
    **{f'torch.{kind}Storage': dtype for kind, dtype in STORED.items()},
    **{str(dtype): dtype for dtype in STORED.values()}}
