"""Checkpoint files are complete whatever happens while they are written, and what is damaged is not resumed from."""
import errno
import os
import random
import resource
import signal
import time
import zipfile

import pytest
import torch

from mmseg_inceptionnext.checkpoints.files import (
    AtomicBackend,
    checkpoints_in,
    choose_checkpoint,
    find_damage,
    newest_checkpoint,
    what_resumes,
    write_atomically,
)
from mmseg_inceptionnext.errors import CheckpointError


def saved(path, size=1000):
    torch.save(dict(state_dict=dict(weight=torch.arange(size))), path)
    return path.read_bytes()


def write_until_killed(folder, content, pipe):
    for i in range(1, 10**6):
        write_atomically(content, str(folder / f'iter_{i}.pth'))
        write_atomically(str(i).encode(), str(folder / 'last_checkpoint'))
        os.write(pipe, f'{i}\n'.encode())


@pytest.mark.parametrize('attempt', range(10))
def test_killed_at_any_moment_every_checkpoint_is_complete(tmp_path, attempt):
    content = saved(tmp_path / 'model.bin', size=200_000)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            write_until_killed(tmp_path, content, writer)
        finally:
            os._exit(1)
    os.close(writer)
    os.read(reader, 1)  # it has written one
    time.sleep(random.Random(attempt).uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    done = [int(line) for line in os.read(reader, 10**6).decode().split()]
    os.close(reader)
    found = checkpoints_in(str(tmp_path))
    assert len(found) >= max(done, default=1)  # what was said to be there is there
    assert all(torch.equal(torch.load(path)['state_dict']['weight'], torch.arange(200_000)) for path in found)
    last = int((tmp_path / 'last_checkpoint').read_text() or 0) if (tmp_path / 'last_checkpoint').exists() else 0
    assert last >= max(done, default=0) and newest_checkpoint(str(tmp_path)) == (found[0], [])


@pytest.fixture
def small_files():
    """No file may be larger than 100 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_the_old_file_stays(tmp_path, small_files):
    path = tmp_path / 'iter_1.pth'
    write_atomically(b'old', str(path))
    with pytest.raises(OSError):
        write_atomically(bytes(200_000), str(path))
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['iter_1.pth']


@pytest.mark.parametrize('number', [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_rename(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'replace', refuse)
    AtomicBackend().put(b'new', tmp_path / 'folder' / 'iter_1.pth')
    assert (tmp_path / 'folder' / 'iter_1.pth').read_bytes() == b'new'
    assert os.listdir(tmp_path / 'folder') == ['iter_1.pth']


def test_a_failing_disk_is_an_error(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / 'iter_1.pth').write_bytes(b'old')
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='Input/output error'):
        write_atomically(b'new', str(tmp_path / 'iter_1.pth'))
    assert (tmp_path / 'iter_1.pth').read_bytes() == b'old' and os.listdir(tmp_path) == ['iter_1.pth']


def damaged_files(content):
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1:]
    return {'empty': (b'', 'it is empty'), 'cut': (content[:middle], 'cut off'), 'one byte less': (content[:-1], 'cut'),
            'one bit': (flipped, 'is damaged'), 'text': (b'hello', 'no checkpoint')}


@pytest.mark.parametrize('kind', ['empty', 'cut', 'one byte less', 'one bit', 'text'])
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path, kind):
    content = saved(tmp_path / 'iter_9.pth')
    damaged, reason = damaged_files(content)[kind]
    (tmp_path / 'iter_10.pth').write_bytes(damaged)
    (tmp_path / 'best_mIoU_iter_11.pth').write_bytes(content)  # which has no optimizer
    path, (line, ) = newest_checkpoint(str(tmp_path))
    assert path == str(tmp_path / 'iter_9.pth') == choose_checkpoint(str(tmp_path)) and find_damage(path) == ''
    assert 'iter_10.pth was skipped' in line and reason in line
    assert what_resumes(str(tmp_path)).startswith(f'{path} is complete')
    (tmp_path / 'iter_9.pth').write_bytes(damaged)
    with pytest.raises(CheckpointError) as error:
        choose_checkpoint(str(tmp_path))
    assert all(name in str(error.value) for name in ('iter_10.pth', 'iter_9.pth', 'load_from=FILE'))
    assert 'No checkpoint' in what_resumes(str(tmp_path))


def put_nothing_good(path, kind):
    """Something else than a checkpoint in the place of one; the reason by which it is skipped."""
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('readme.txt', 'hello')
        return 'it is no checkpoint'
    if kind == 'encrypted zip':
        content = bytearray(saved(path))
        content[content.index(b'PK\1\2') + 8] |= 1
        path.write_bytes(content)
        return 'it is cut off or no checkpoint'
    if kind in ('pipe', 'folder'):
        os.mkfifo(path) if kind == 'pipe' else path.mkdir()
        return 'it is no file'
    path.symlink_to(path if kind == 'loop' else path.parent / 'gone')
    return f'it cannot be read ({os.strerror(errno.ELOOP if kind == "loop" else errno.ENOENT)})'


@pytest.mark.parametrize('kind', ['zip', 'encrypted zip', 'pipe', 'folder', 'loop', 'dangling link'])
def test_what_is_no_checkpoint_is_skipped(tmp_path, kind):
    saved(tmp_path / 'iter_2.pth')
    reason = put_nothing_good(tmp_path / 'iter_4.pth', kind)
    path, (line,) = newest_checkpoint(str(tmp_path))
    assert path == str(tmp_path / 'iter_2.pth') and f'{tmp_path}/iter_4.pth was skipped: {reason}' in line


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_checkpoint_that_may_not_be_read_is_skipped(tmp_path):
    for name in ('iter_2.pth', 'iter_4.pth'):
        saved(tmp_path / name)
    (tmp_path / 'iter_4.pth').chmod(0)
    path, (line,) = newest_checkpoint(str(tmp_path))
    assert path == str(tmp_path / 'iter_2.pth') and 'it cannot be read (Permission denied)' in line


def test_no_checkpoint_is_no_error(tmp_path):
    for folder in (tmp_path, tmp_path / 'missing'):
        assert newest_checkpoint(str(folder)) == (None, []) and choose_checkpoint(str(folder)) is None
