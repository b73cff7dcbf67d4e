"""Nothing is lost when a checkpoint cannot be renamed, or the disk fails while it is saved."""
import errno
import os
import platform

import pytest
import torch

from mmseg_inceptionnext.checkpoints import files, write_atomically
from mmseg_inceptionnext.checkpoints.files import checkpoints_in, find_damage
from mmseg_inceptionnext.engine import AtomicCheckpointHook

from utils import SHORT, TOY, run_tool


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ('x86_64', 'aarch64') or platform.system() != 'Linux',
                    reason="renaming is refused by Linux's filters of system calls")
def test_training_on_a_file_system_that_cannot_rename(toy_root, tmp_path):
    options = ['--work-dir', tmp_path / 'work', '--cfg-options', *SHORT, f'data_root={toy_root}']
    run_tool('tests/no_rename.py', 'tools/train.py', TOY, *options)
    text = run_tool('tests/no_rename.py', 'tools/train.py', TOY, '--resume', *options, 'train_cfg.max_iters=3').stdout
    assert 'Load checkpoint from' in text and 'Advance dataloader 2 steps' in text
    found = [os.path.basename(path) for path in checkpoints_in(str(tmp_path / 'work')) if not find_damage(path)]
    assert found == ['iter_3.pth', 'iter_2.pth', 'iter_1.pth'] and not list((tmp_path / 'work').glob('.*'))
    (tmp_path / 'a').touch()
    (tmp_path / 'rename.py').write_text(f"import os\nos.replace({str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r})")
    refused = run_tool('tests/no_rename.py', tmp_path / 'rename.py', check=False)
    assert 'Operation not permitted' in refused.stdout and (tmp_path / 'a').is_file()


def test_where_nothing_is_renamed_a_failing_disk_leaves_a_complete_copy(tmp_path, monkeypatch):
    path, write = tmp_path / 'iter_1.pth', files._write
    torch.save(dict(state_dict=dict(weight=torch.arange(1000))), path)
    content = path.read_bytes()

    def refuse(*args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def cut_off(data, name):
        write(data[:-9], name) if name == str(path) else write(data, name)
        if name == str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, 'replace', refuse)
    monkeypatch.setattr(files, '_write', cut_off)
    with pytest.raises(OSError, match='Input/output error'):
        write_atomically(content, str(path))
    copy = tmp_path / '.iter_1.pth.tmp'
    assert copy.read_bytes() == content and find_damage(str(path))
    hook = AtomicCheckpointHook(by_epoch=False)
    hook.out_dir = str(tmp_path)
    (tmp_path / '.iter_2.pth.tmp').write_bytes(content[:-9])
    hook._remove_leftovers()
    assert sorted(p.name for p in tmp_path.glob('.*')) == [copy.name]  # what is complete nowhere else
    path.write_bytes(content)
    hook._remove_leftovers()
    assert not copy.exists()
