"""How a run ends that cannot write, shares its folder, is stopped or loses a worker: by a sentence."""
import errno
import multiprocessing
import os
import signal
import time

import pytest
from filelock import FileLock
from mmseg.registry import TRANSFORMS

from mmseg_inceptionnext.apis import evaluate, run, train, train_seeds
from mmseg_inceptionnext.errors import CheckpointError, ConfigError, LostWorkerError

from utils import ROOT, SHORT, TOY, _be_tool, run_tool, short_config


@pytest.fixture(scope='module')
def trained(toy_root, tmp_path_factory):
    """One iteration: the work dir."""
    work_dir = tmp_path_factory.mktemp('work')
    train(short_config(toy_root, work_dir, max_iters=1))
    return work_dir


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run, 'SECONDS_TO_WAIT', 0)


def test_a_second_training_in_the_folder_is_refused(trained, toy_root, tmp_path, impatient):
    """In whichever of the two folders it would write; an evaluation there is not."""
    for name in ('run', 'checkpoints/run'):
        os.makedirs(tmp_path / name, exist_ok=True)
        cfg = short_config(toy_root, tmp_path / 'run', max_iters=1)
        cfg.default_hooks.checkpoint.out_dir = str(tmp_path / 'checkpoints')
        with FileLock(tmp_path / name / 'training.lock'):
            with pytest.raises(ConfigError, match=f'another training writes to {tmp_path / name}: .* --work-dir'):
                train(cfg)
            evaluate(short_config(toy_root, tmp_path / 'run'), str(trained / 'iter_1.pth'))
    train(cfg)
    assert (tmp_path / 'checkpoints/run/iter_1.pth').is_file()


def test_each_seed_has_a_lock_of_its_own(toy_root, tmp_path, impatient):
    (tmp_path / 'seed_2').mkdir()
    with FileLock(tmp_path / 'seed_2/training.lock'):
        with pytest.raises(ConfigError, match=f'another training writes to {tmp_path}/seed_2'):
            train_seeds(short_config(toy_root, tmp_path, max_iters=1), [1, 2])
    assert (tmp_path / 'seed_1/iter_1.pth').is_file() and not (tmp_path / 'seed_2/iter_1.pth').exists()


def test_a_file_system_without_locks_is_a_warning(toy_root, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(FileLock, 'acquire', refuse)
    train(short_config(toy_root, tmp_path, max_iters=1))
    assert f'{tmp_path} cannot be locked (Operation not supported)' in ''.join(capsys.readouterr())
    assert (tmp_path / 'iter_1.pth').is_file()


@pytest.fixture
def started(toy_root, tmp_path):
    """A long training with workers, in its first iterations; what it prints is in ``output``."""
    long = ('train_cfg.max_iters=1000', 'train_cfg.val_interval=1000', 'train_dataloader.batch_size=1',
            'train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')
    command = ['tools/train.py', TOY, '--work-dir', str(tmp_path / 'run'), '--cfg-options', f'data_root={toy_root}',
               *SHORT, *long]
    (tmp_path / 'output').touch()
    context = multiprocessing.get_context('forkserver')
    process = context.Process(target=in_a_terminal, args=(command, tmp_path / 'output'))
    process.start()
    while process.is_alive() and not (tmp_path / 'run/iter_2.pth').exists():
        time.sleep(0.01)
    yield process
    process.kill()


def in_a_terminal(command, output):
    """A process group of its own, which hears Ctrl-C."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _be_tool(command, output, ROOT)


def test_a_killed_training_leaves_no_lock(started, toy_root, tmp_path):
    """Nor do its workers, which outlive it for some seconds."""
    started.kill()
    started.join()
    cfg = short_config(toy_root, tmp_path / 'run', max_iters=1, few_channels=False)
    train(cfg, resume=True)
    assert any('resumed epoch: 0, iter: ' in path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))


def test_ctrl_c_says_where_training_stopped(started, tmp_path):
    """It goes to all processes of the terminal, the workers among them."""
    os.killpg(started.pid, signal.SIGINT)
    started.join(60)
    text = (tmp_path / 'output').read_text()
    assert started.exitcode == 130 and 'Traceback' not in text, text[-4000:]
    last = text.splitlines()[-1]
    assert 'stopped by Ctrl-C after iteration ' in last and f'{tmp_path}/run/iter_' in last and '--resume' in last


def stop(*args):
    raise KeyboardInterrupt


def test_ctrl_c_before_the_first_checkpoint_and_in_an_evaluation(trained, toy_root, tmp_path, monkeypatch, capsys):
    for split, words in (('Train', f'after iteration 0. No checkpoint in {tmp_path}'), ('Test', 'no metrics')):
        monkeypatch.setattr(f'mmengine.runner.{"IterBased" * (split == "Train")}{split}Loop.run_iter', stop)
        with pytest.raises(KeyboardInterrupt):
            if split == 'Train':
                train(short_config(toy_root, tmp_path))
            else:
                evaluate(short_config(toy_root, tmp_path), str(trained / 'iter_1.pth'))
        assert 'stopped by Ctrl-C' in (text := ''.join(capsys.readouterr())) and words in text.splitlines()[-1]


@TRANSFORMS.register_module()
class KillWorker:
    """The process that loads the sample is killed, as by the system when memory runs out."""

    def __call__(self, results):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_explained(trained, toy_root, tmp_path):
    for split in ('train', 'test'):
        cfg = short_config(toy_root, tmp_path)
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.dataset.pipeline = 1, [*loader.dataset.pipeline, dict(type='KillWorker')]
        with pytest.raises(LostWorkerError, match=rf'DataLoader worker \(pid.*{split}_dataloader.num_workers'):
            train(cfg) if split == 'train' else evaluate(cfg, str(trained / 'iter_1.pth'))


def test_a_full_disk_ends_an_evaluation(trained, toy_root, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for writes in ('PIL.Image.Image.save', 'json.dump'):
        with monkeypatch.context() as patch, pytest.raises(CheckpointError, match='No space left on device. Make room'):
            patch.setattr(writes, refuse)
            evaluate(short_config(toy_root, tmp_path), str(trained / 'iter_1.pth'), out=str(tmp_path / 'out'))


def test_folders_that_cannot_be_written_are_named_before_anything_is_loaded(toy_root, tmp_path):
    (tmp_path / 'file').touch()
    for folder in ('/proc/nowhere', f'{tmp_path}/file/run'):
        cfg = short_config(toy_root, folder)
        cfg.load_from = checkpoint = str(tmp_path / 'none.pth')
        for attempt, arguments in ((train, [cfg]), (evaluate, [cfg, checkpoint])):
            with pytest.raises(ConfigError, match=f'--work-dir {folder} cannot be written: '):
                attempt(*arguments)
        cfg.work_dir = str(tmp_path / 'run')
        for option in ('out', 'show_dir'):
            with pytest.raises(ConfigError, match=f'--{option.replace("_", "-")} {folder} cannot be written: '):
                evaluate(cfg, checkpoint, **{option: folder})
        cfg.default_hooks.checkpoint.out_dir = folder
        with pytest.raises(ConfigError, match=f'default_hooks.checkpoint.out_dir {folder}/run cannot be written: '):
            train(cfg)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission_is_named(toy_root, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=f'--work-dir {tmp_path} cannot be written: Permission denied'):
        train(short_config(toy_root, tmp_path))


def test_the_tools_end_with_these_sentences():
    for tool in (['tools/train.py', TOY], ['tools/test.py', TOY, 'none.pth']):
        result = run_tool(*tool, '--work-dir', '/proc/nowhere', check=False)
        assert result.returncode == 1 and '--work-dir /proc/nowhere cannot be written' in result.stdout
        assert 'Traceback' not in result.stdout
