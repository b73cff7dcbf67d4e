"""What --resume goes on from, and that no validation is lost."""
import shutil

import pytest
import torch
from mmengine.runner import ValLoop

from mmseg_inceptionnext.apis import train, train_seeds
from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.evaluation import ExactIoUMetric

from utils import content, short_config


@pytest.fixture
def validated(monkeypatch):
    """The iterations that were validated, each with a score of its own."""
    iterations, run = [], ValLoop.run

    def noted(self):
        iterations.append(self.runner.iter)
        return run(self)

    monkeypatch.setattr(ValLoop, 'run', noted)
    monkeypatch.setattr(ExactIoUMetric, 'compute_metrics', lambda self, results: dict(mIoU=50. - iterations[-1]))
    return iterations


def kill_in_validation(monkeypatch, iteration):
    run = ValLoop.run

    def killed(self):
        if self.runner.iter == iteration:
            raise KeyboardInterrupt
        return run(self)

    monkeypatch.setattr(ValLoop, 'run', killed)


@pytest.mark.parametrize('iteration', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_validation_that_was_killed_is_made_up(toy_root, tmp_path, monkeypatch, validated, iteration):
    with monkeypatch.context() as patch:
        kill_in_validation(patch, iteration)
        with pytest.raises(KeyboardInterrupt):
            train(short_config(toy_root, tmp_path, max_iters=4, val_interval=2))
    del validated[:]
    metrics = train(short_config(toy_root, tmp_path, max_iters=4, val_interval=2), resume=True)
    assert validated == list(range(iteration, 5, 2)) and metrics['mIoU'] == 46
    assert (tmp_path / 'best_mIoU_iter_2.pth').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('save_best', ['mIoU', None])
def test_a_validation_that_was_made_is_not_repeated_and_its_figures_are_kept(toy_root, tmp_path, validated, save_best):
    """Also when it was not the best so far, after which MMEngine writes no checkpoint."""
    def run(folder, **options):
        cfg = short_config(toy_root, folder, max_iters=4, val_interval=2)
        cfg.default_hooks.checkpoint.save_best = save_best
        return train(cfg, **options)

    assert run(tmp_path / 'a')['mIoU'] == 46 and validated == [2, 4]
    del validated[:]
    assert run(tmp_path / 'a', resume=True)['mIoU'] == 46 and validated == []
    for iteration in (3, 2):
        folder = tmp_path / f'from_{iteration}'
        folder.mkdir()
        shutil.copy(tmp_path / f'a/iter_{iteration}.pth', folder)
        assert run(folder, resume=True)['mIoU'] == 46
    assert validated == [4, 4]


@pytest.mark.slow
def test_seeds_that_are_done_keep_their_figures(toy_root, tmp_path, validated):
    def run(**options):
        return train_seeds(short_config(toy_root, tmp_path, max_iters=2, val_interval=1), [1, 2], **options)

    assert run() == run(resume=True) and validated == [1, 2, 1, 2]


@pytest.mark.slow
def test_the_work_dir_comes_before_the_weights_to_start_from(toy_root, tmp_path):
    """Fine-tuning names load_from in the config; a file that is named with the resuming comes before both."""
    def run(folder, max_iters, resume=False):
        cfg = short_config(toy_root, tmp_path / folder, max_iters, val_interval=10)
        cfg.load_from = str(tmp_path / 'start/iter_2.pth')
        train(cfg, resume=resume)
        return sorted(path.name for path in (tmp_path / folder).glob('iter*.pth'))

    start = short_config(toy_root, tmp_path / 'start', max_iters=2, val_interval=10)
    start.load_from = None
    train(start)
    assert run('new', 1, resume=True) == ['iter_1.pth']  # nothing to resume: the weights only
    assert run('new', 3, resume=True) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']
    (tmp_path / 'new/iter_2.pth').unlink()
    assert run('new', 4, resume=True) == ['iter_1.pth', 'iter_3.pth', 'iter_4.pth']
    assert run('other', 3, resume=str(tmp_path / 'new/iter_1.pth')) == ['iter_2.pth', 'iter_3.pth']


@pytest.mark.slow
def test_checkpoints_with_other_names_are_found(toy_root, tmp_path):
    for max_iters in (2, 3):
        cfg = short_config(toy_root, tmp_path, max_iters, val_interval=10)
        cfg.default_hooks.checkpoint.filename_tmpl = 'step+{:03d}.pth'
        train(cfg, resume=True)
        (tmp_path / 'step+001.pth').unlink(missing_ok=True)
    assert sorted(path.name for path in tmp_path.glob('step*.pth')) == ['step+002.pth', 'step+003.pth']
    assert content(tmp_path / 'step+003.pth')['meta']['iter'] == 3


@pytest.fixture(scope='module')
def checkpoint(toy_root, tmp_path_factory):
    """One of the second iteration."""
    folder = tmp_path_factory.mktemp('good')
    train(short_config(toy_root, folder, max_iters=2, val_interval=10))
    return folder / 'iter_2.pth'


def resume_from(changed, toy_root, folder, **options):
    torch.save(changed, folder / 'iter_2.pth')
    cfg = short_config(toy_root, folder, val_interval=10, **options)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 2
    train(cfg, resume=True)


@pytest.mark.parametrize('part,value,words', [
    ('meta', dict(epoch=0, iter=-1), 'meta.iter is -1, not a whole number from 0'),
    ('optimizer', {}, "KeyError: 'param_groups'"), ('ema_state_dict', [1], "TypeError: 'int' object is not"),
], ids=['place', 'optimizer', 'average'])
def test_what_cannot_be_resumed_from_is_a_sentence(toy_root, tmp_path, checkpoint, part, value, words):
    changed = content(checkpoint)
    changed[part] = value
    with pytest.raises(CheckpointError) as error:
        resume_from(changed, toy_root, tmp_path, custom_hooks=[dict(type='EMAHook')])
    text = str(error.value)
    assert text.startswith(f'{tmp_path}/iter_2.pth cannot be resumed from: ') and words in text, text
    assert 'load_from=FILE' in text and len(text.splitlines()) == 1


def test_what_cannot_be_loaded_is_a_sentence(toy_root, tmp_path, checkpoint):
    changed = content(checkpoint)
    changed['state_dict']._metadata = 5
    torch.save(changed, tmp_path / 'start.pth')
    with pytest.raises(CheckpointError, match=f'{tmp_path}/start.pth cannot be loaded: AttributeError') as error:
        train(short_config(toy_root, tmp_path, load_from=str(tmp_path / 'start.pth')))
    assert isinstance(error.value.__cause__, AttributeError)


def test_what_does_no_harm_is_taken(toy_root, tmp_path, checkpoint):
    changed = content(checkpoint)
    changed['message_hub']['runtime_info']['keep_ckpt_ids'] = {'../a': 1}
    changed['param_schedulers'][0]['step'] = 'x'
    resume_from(changed, toy_root, tmp_path)
    assert (tmp_path / 'iter_3.pth').is_file()
    changed['meta']['iter'] = 10**6  # beyond the end
    resume_from(changed, toy_root, tmp_path)
