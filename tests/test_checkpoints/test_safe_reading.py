"""Checkpoints are data: what MMEngine saves is read, and nothing that a pickle could run is run."""
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from typing import Tuple

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS
from safetensors.torch import save_file

from mmseg_inceptionnext.checkpoints.safe_reading import read_checkpoint, safe_checkpoints
from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

from hostile import EXTRAS
from utils import Malicious


def write_legacy(path, thing):
    torch.save(thing, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize('save', [torch.save, lambda thing, path: write_legacy(path, thing)], ids=['zip', 'legacy'])
@pytest.mark.parametrize('function', [os.system, eval, subprocess.check_call])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, save, function):
    mark = tmp_path / 'mark'
    argument = {os.system: f'touch {mark}', eval: f'open({str(mark)!r}, "w").close()',
                subprocess.check_call: ['touch', str(mark)]}[function]
    save(dict(state_dict=dict(a=torch.ones(2)), extra=Malicious(function, argument)), tmp_path / 'bad.pth')
    with pytest.raises(UnsafeCheckpointError) as error:
        read_checkpoint(str(tmp_path / 'bad.pth'))
    assert not mark.exists()
    name = {os.system: 'posix.system', eval: 'builtins.eval', subprocess.check_call: 'subprocess.check_call'}[function]
    for words in ('bad.pth', name, '--trust-checkpoint', 'trust_checkpoint=True'):
        assert words in str(error.value), error.value
    with safe_checkpoints(trust=True):
        read_checkpoint(str(tmp_path / 'bad.pth'))
    assert mark.exists()


@pytest.mark.parametrize('owner,name', [
    (np.ndarray, 'tofile'), (HistoryBuffer, '__init__'), (HistoryBuffer, '__dict__'), (torch.Tensor, 'mean')])
def test_getattr_reaches_nothing_but_the_statistics_of_the_message_hub(tmp_path, owner, name):
    def write(owner, name):
        parts = (pickle.dumps(part, protocol=2)[2:-1] for part in (owner, name))
        content = b'\x80\x02c__builtin__\ngetattr\n' + b''.join(parts) + b'\x86R.'  # getattr(owner, name)
        assert pickle.loads(content) == getattr(owner, name)
        with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
            for part, data in (('data.pkl', content), ('version', b'3'), ('byteorder', b'little')):
                archive.writestr(f'archive/{part}', data)

    write(HistoryBuffer, 'mean')
    assert read_checkpoint(str(tmp_path / 'a.pth')) is HistoryBuffer.mean
    write(owner, name)
    with pytest.raises(UnsafeCheckpointError, match='a.pth holds (builtins.getattr|torch.Tensor)'):
        read_checkpoint(str(tmp_path / 'a.pth'))


def test_what_mmengine_saves_is_read(tmp_path):
    hub = MessageHub.get_instance('test_safe_reading')
    for value in (1.5, np.float64(2.5), np.float32(3.5)):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 7)
    hub.update_info('ids', np.arange(3))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    checkpoint = dict(
        state_dict=OrderedDict(a=torch.ones(2), b=torch.ones(2, dtype=torch.bfloat16)),
        optimizer=optimizer.state_dict(), message_hub=hub.state_dict(),
        meta=dict(seed=np.int64(3), flag=np.bool_(True), score=np.float64(61.5), classes=('a', 'b'), part=slice(0, 3)))
    for save in (torch.save, lambda thing, path: write_legacy(path, thing)):
        save(checkpoint, tmp_path / 'good.pth')
        loaded = read_checkpoint(str(tmp_path / 'good.pth'))
        assert torch.equal(loaded['state_dict']['b'], checkpoint['state_dict']['b'])
        assert loaded['meta'] == checkpoint['meta']
        other = MessageHub.get_instance(f'test_safe_reading {save}')
        other.load_state_dict(loaded['message_hub'])
        assert other.get_scalar('train/loss').statistics('mean') == pytest.approx(2.5)
        assert other.get_info('ids').tolist() == [0, 1, 2]


@pytest.mark.parametrize('package', ['numpy.core', 'numpy._core'])
def test_numbers_of_either_numpy_are_read(tmp_path, package):
    torch.save(dict(a=np.float64(1.25), b=np.arange(4)), tmp_path / 'a.pth')
    with zipfile.ZipFile(tmp_path / 'a.pth') as source, zipfile.ZipFile(tmp_path / 'b.pth', 'w') as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('data.pkl'):
                old = np.empty(0).__reduce__()[0].__module__.replace('.multiarray', '').encode()
                content = content.replace(b'c' + old + b'.multiarray\n', f'c{package}.multiarray\n'.encode())
                assert package.encode() in content
            target.writestr(name.replace('a/', 'b/', 1), content)
    loaded = read_checkpoint(str(tmp_path / 'b.pth'))
    assert loaded['a'] == 1.25 and loaded['b'].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize('name', EXTRAS)
def test_what_is_not_data_is_refused_by_its_name(tmp_path, name):
    """For what it is, not because something stumbles over it later."""
    torch.save(dict(a=EXTRAS[name](tmp_path / 'mark')), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(str(tmp_path / 'a.pth'))
    if 'tensor' in name:
        assert 'larger than the numbers that it is made from' in str(error.value)
    elif 'items' in name:
        assert 'damaged or no checkpoint' in str(error.value)  # a function takes none
    else:
        assert isinstance(error.value, UnsafeCheckpointError) and not (tmp_path / 'mark').exists()


def test_a_history_keeps_no_table_of_statistics(tmp_path):
    """It belongs to the class: what a file put there would stay for all histories of the process."""
    history = HistoryBuffer([1., 3.], [1, 1])
    history._statistics_methods = dict(mean=HistoryBuffer.max)  # what its pickle then holds
    torch.save(dict(a=history), tmp_path / 'a.pth')
    loaded = read_checkpoint(str(tmp_path / 'a.pth'))['a']
    assert loaded.statistics('mean') == 2 and HistoryBuffer([1., 3.], [1, 1]).statistics('mean') == 2


def test_tensors_with_attributes_are_read_without_them(tmp_path):
    tensor = torch.arange(3.)
    tensor.note = 'of FSDP'
    torch.save(dict(a=tensor), tmp_path / 'a.pth')
    loaded = read_checkpoint(str(tmp_path / 'a.pth'))['a']
    assert torch.equal(loaded, tensor) and not hasattr(loaded, 'note')
    torch.save(dict(a=torch.nn.Parameter(tensor).as_subclass(Subclass)), tmp_path / 'a.pth')
    with pytest.raises(UnsafeCheckpointError, match='Subclass'):
        read_checkpoint(str(tmp_path / 'a.pth'))


class Subclass(torch.Tensor):
    pass


def test_safetensors_are_read(tmp_path):
    save_file(dict(a=torch.arange(3)), tmp_path / 'a.safetensors', metadata=dict(meta='{"cfg": "a = 1"}'))
    loaded = read_checkpoint(str(tmp_path / 'a.safetensors'))
    assert loaded['state_dict']['a'].tolist() == [0, 1, 2] and loaded['meta'] == dict(cfg='a = 1')


class Program(torch.nn.Module):
    """TorchScript that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save(torch.zeros(1), self.path)

    def forward(self, x):
        return x


@pytest.mark.parametrize('tail', [b'', b'PK\x05\x06'], ids=['plain', 'hidden from zipfile'])
def test_a_program_is_no_checkpoint(tmp_path, tail):
    torch.jit.script(Program(str(tmp_path / 'mark'))).save(str(tmp_path / 'program.pt'))
    with open(tmp_path / 'program.pt', 'ab') as file:
        file.write(tail)
    with pytest.raises(CheckpointError, match='TorchScript|damaged'):
        read_checkpoint(str(tmp_path / 'program.pt'))
    assert not (tmp_path / 'mark').exists()


def test_tar_archives_are_refused_before_they_are_unpacked(tmp_path):
    (tmp_path / 'victim').write_text('')
    mode = (tmp_path / 'victim').stat().st_mode
    with tarfile.open(tmp_path / 'a.pth', 'w') as archive:
        member = tarfile.TarInfo('storages')
        member.type, member.linkname, member.mode = tarfile.LNKTYPE, str(tmp_path / 'victim'), 0o777
        archive.addfile(member)
    with pytest.raises(CheckpointError, match='damaged or no checkpoint'):
        read_checkpoint(str(tmp_path / 'a.pth'))
    assert (tmp_path / 'victim').stat().st_mode == mode


class SourceCodePickler(pickle.Pickler):
    """Writes a mark as PyTorch's old format writes a module: a class, its file and its source.

    With both given, PyTorch compares, and writes a patch to a file that the checkpoint chose; empty they do no harm.
    """

    def persistent_id(self, obj):
        return ('module', OrderedDict, '', '') if obj == 'mark' else None


def test_the_old_formats_source_code_is_refused(tmp_path):
    with open(tmp_path / 'a.pth', 'wb') as file:
        for part in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION,
                     dict(protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))):
            pickle.dump(part, file, protocol=2)
        SourceCodePickler(file, protocol=2).dump(dict(a='mark'))
        pickle.dump([], file, protocol=2)
    with safe_checkpoints(trust=True):
        assert read_checkpoint(str(tmp_path / 'a.pth')) == dict(a=OrderedDict)  # so it is a file of that format
    with pytest.raises(CheckpointError, match='a.pth'):
        read_checkpoint(str(tmp_path / 'a.pth'))


def test_allowed_functions_cannot_be_changed(tmp_path):
    content = b'\x80\x02ctorch._utils\n_rebuild_tensor\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xsb.'
    assert pickle.loads(content.replace(b'_utils\n_rebuild_tensor', b'_utils\n_rebuild_qtensor'))
    torch._utils._rebuild_qtensor.__name__ = '_rebuild_qtensor'  # so plain pickle changes a function
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        for part, data in (('data.pkl', content), ('version', b'3'), ('byteorder', b'little')):
            archive.writestr(f'archive/{part}', data)
    with pytest.raises(CheckpointError):
        read_checkpoint(str(tmp_path / 'a.pth'))
    assert torch._utils._rebuild_tensor.__name__ == '_rebuild_tensor'


@pytest.mark.parametrize('name', ['MultiStepLR', 'OneCycleLR', 'CosineAnnealingLR', 'PolyLR'])
def test_mmengines_schedulers_are_read(tmp_path, name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    settings = dict(MultiStepLR=dict(milestones=[2, 3]), OneCycleLR=dict(eta_max=1, total_steps=9),
                    CosineAnnealingLR=dict(T_max=5), PolyLR=dict(power=0.9))[name]
    scheduler = PARAM_SCHEDULERS.build(dict(type=name, optimizer=optimizer, by_epoch=False, **settings))
    torch.save(dict(param_schedulers=[scheduler.state_dict()]), tmp_path / 'a.pth')
    loaded = read_checkpoint(str(tmp_path / 'a.pth'))['param_schedulers'][0]
    scheduler.load_state_dict(loaded)
    assert loaded.keys() == scheduler.state_dict().keys()


@pytest.mark.parametrize('value', [
    np.arange(3, dtype=kind) for kind in ('int8', 'uint16', 'float16', 'complex64')] + [
    np.array(['a', 'bc']), np.array([b'a']), np.array([{'a': 1}, None], dtype=object)],
                         ids=lambda value: str(value.dtype))
def test_arrays_of_every_kind_are_read(tmp_path, value):
    torch.save(dict(a=value), tmp_path / 'a.pth')
    np.testing.assert_array_equal(read_checkpoint(str(tmp_path / 'a.pth'))['a'], value)


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'\x80\x02}', b'PK\x03\x04 half', bytes(range(256)) * 9])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_garbage_is_named(tmp_path, content, suffix):
    path = tmp_path / f'bad.{suffix}'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f'bad.{suffix} is damaged or no checkpoint') as error:
        read_checkpoint(str(path))
    assert 'weights_only' not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_pointer_of_git_lfs_is_named(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n')
    with pytest.raises(CheckpointError, match=f'{path} is a pointer of Git LFS, .* git lfs pull'):
        read_checkpoint(str(path))


def test_half_a_file_is_named(tmp_path):
    buffer = io.BytesIO()
    torch.save(dict(a=torch.ones(1000)), buffer)
    (tmp_path / 'half.pth').write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(CheckpointError, match='half.pth is damaged or no checkpoint'):
        read_checkpoint(str(tmp_path / 'half.pth'))
    with pytest.raises(CheckpointError, match='none.pth: no such checkpoint file'):
        read_checkpoint(str(tmp_path / 'none.pth'))
