"""What a run prints, and what it writes to its log file only."""
import warnings

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.engine import console

from utils import short_config


def test_the_console_gets_what_matters_and_the_file_all(toy_root, tmp_path, capsys):
    train(short_config(toy_root, tmp_path / 'train', max_iters=2, val_interval=2))
    printed = ''.join(capsys.readouterr())
    log = next(tmp_path.glob('train/*/*.log')).read_text()
    dumps = ('System environment', 'train_pipeline = [', 'Hooks will be executed', 'paramwise_options', 'per class')
    matter = ('train: 2 iters', 'batch: the recipe has 6', 'loss: ', 'mIoU: ', 'best checkpoint', 'train: done in ')
    assert all(words in log for words in (*dumps, *matter))
    assert all(words in printed for words in matter) and not any(words in printed for words in dumps)
    assert 'HardDiskBackend' not in printed and 'The prefix is not set' not in printed
    assert len(printed.splitlines()) < 20
    evaluate(short_config(toy_root, tmp_path / 'test'), str(tmp_path / 'train/iter_2.pth'))
    printed = ''.join(capsys.readouterr())
    assert all(words in printed for words in ('by protocol ss', 'per class', '| sky ', 'test: done in', 'metrics.json'))
    assert 'Config' not in printed and 'absent from labels' not in printed


def test_only_the_named_warnings_are_silenced(recwarn):
    with warnings.catch_warnings():
        console.silence_warnings()
        for module, message in console.WARNINGS.items():
            warnings.warn_explicit(f'{message}, and more', UserWarning, 'file.py', 1, module=module.replace('\\', ''))
            warnings.warn_explicit('another', UserWarning, 'file.py', 1, module=module.replace('\\', ''))
    assert [str(warning.message) for warning in recwarn] == ['another'] * len(console.WARNINGS)
