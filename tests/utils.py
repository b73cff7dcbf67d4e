"""Helpers of several tests."""
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch.nn import functional as F

from mmseg_inceptionnext.analysis.stock import randomise
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import InceptionNeXt

ROOT = Path(__file__).resolve().parents[1]
TOY = 'configs/fpn_inceptionnext_a_toy.py'
SHORT = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=1',
         'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'val_dataloader.persistent_workers=False')
TIMEOUT = 600  # seconds
_imported = multiprocessing.get_context('forkserver')
_imported.set_forkserver_preload(['mmseg_inceptionnext.apis', 'mmseg_inceptionnext.analysis'])


def short_config(toy_root, work_dir, max_iters=3, val_interval=3, few_channels=True, **options):
    """The toy config for a short run in this process: a checkpoint and a line of the log in every iteration."""
    cfg = load_config(str(ROOT / TOY), options, str(work_dir))
    if few_channels:
        narrow(cfg.model)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(toy_root)
    cfg.train_cfg.update(max_iters=max_iters, val_interval=val_interval)
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    return cfg


def narrow(model):
    """Makes a config's model one of few channels, for tests where its size says nothing: it is built much faster."""
    dims = [16, 24, 32, 48]
    model.backbone.arch = dict(InceptionNeXt.arch_settings['atto'], dims=dims)
    model.get('neck', model.decode_head).in_channels = dims
    if 'auxiliary_head' in model:
        model.auxiliary_head.in_channels = dims[2]


def save_checkpoint(config, path, with_meta=True, change=lambda model: None, **meta):
    """A checkpoint as MMEngine's runner writes it, of a model whose weights are random and not degenerate.

    ``change`` is what is done to the model's config before.
    """
    init_default_scope('mmseg')
    cfg = Config.fromfile(str(ROOT / config))
    change(cfg.model)
    model = randomise(MODELS.build(cfg.model))
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True))
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dataset.metainfo, **meta) if with_meta else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def content(checkpoint):
    """What a file of ours holds."""
    return torch.load(checkpoint, weights_only=False)


def load_model(config, checkpoint):
    """The model of a config and a checkpoint, built without our loading, and the mean and std of its input."""
    cfg = Config.fromfile(str(ROOT / config))
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    return model, *(torch.tensor(cfg.data_preprocessor[name]).view(3, 1, 1) for name in ('mean', 'std'))


@torch.no_grad()
def mean_of_views(model, mean, std, path, scales, divisor=1, flips=(False, True)):
    """Classes by the mean of the softmax over scales, each plain and mirrored, at the size of the image.

    ``scales`` as ``mmcv.imrescale`` takes them; sides are then made multiples of ``divisor``.
    """
    image = cv2.imread(str(path))
    total = 0
    for scale in scales:
        view = mmcv.imrescale(image, scale)
        height, width = (-(-side // divisor) * divisor for side in view.shape[:2])
        view = cv2.resize(view, (width, height), interpolation=cv2.INTER_LINEAR)
        view = (torch.from_numpy(view[..., ::-1].copy()).permute(2, 0, 1).float() - mean) / std
        for flip in flips:
            logits = model(view.flip(-1)[None] if flip else view[None], mode='tensor')
            logits = F.interpolate(logits, view.shape[-2:], mode='bilinear')
            logits = logits.flip(-1) if flip else logits
            total = total + F.interpolate(logits, image.shape[:2], mode='bilinear').softmax(1)
    return total[0].argmax(0).numpy()


def run_tool(*args, check=True, cwd=ROOT, **env) -> subprocess.CompletedProcess:
    """Runs ``python ARGS``; see :func:`run`.

    A tool of ours runs in a fork of a process that has imported the package, which takes seconds, and nothing else.
    """
    if env or not str(args[0]).startswith('tools/'):
        return run(sys.executable, *args, check=check, cwd=cwd, **env)
    words = [str(word) for word in args]
    with tempfile.NamedTemporaryFile() as output:
        process = _imported.Process(target=_be_tool, args=(words, output.name, cwd))
        process.start()
        process.join(TIMEOUT)
        ended = not process.is_alive()
        process.kill()
        text = output.read().decode()
    assert ended, f'not ended after {TIMEOUT} s:\n{text[-4000:]}'
    assert not check or process.exitcode == 0, text[-4000:]
    return subprocess.CompletedProcess(words, process.exitcode, text)


def _be_tool(words, output, cwd) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(cwd)
    sys.argv = words
    runpy.run_path(words[0], run_name='__main__')


def run_script(name: str, *args, **kwargs) -> subprocess.CompletedProcess:
    """Runs a shell script of ``tools/``, with the ``python`` of the tests; see :func:`run`."""
    path = kwargs.pop('PATH', os.environ['PATH'])
    return run('bash', f'tools/{name}', *args, PATH=f'{os.path.dirname(sys.executable)}:{path}', **kwargs)


def run(*command, check=True, cwd=ROOT, **env) -> subprocess.CompletedProcess:
    """Runs a command, by default in the project's root; on an unexpected failure the test shows its output."""
    result = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **env}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT)
    assert not check or result.returncode == 0, result.stdout[-4000:]
    return result


def hear_interrupts() -> None:
    """For ``preexec_fn``: shells let what they run in the background ignore Ctrl-C, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def assert_equal_stages(model, reference, sizes=((2, (97, 131)), (1, (64, 96)))):
    """The maps of a backbone are those of timm's, in float64; ``sizes`` are batches, and heights and widths."""
    for batch, size in sizes:
        x = torch.randn(batch, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            expected = reference.forward_intermediates(x, intermediates_only=True)
            outs = model(x)
        assert len(outs) == len(expected) == 4
        for out, value in zip(outs, expected):
            torch.testing.assert_close(out, value, rtol=1e-10, atol=1e-10)


def total_loss(losses: dict) -> torch.Tensor:
    return sum(value for key, value in losses.items() if 'loss' in key)


class Malicious:
    """Pickled, it calls a function when the pickle is read."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def poison(checkpoint, path, mark):
    """A copy of a checkpoint that touches a file when it is run as a program."""
    content = torch.load(checkpoint, weights_only=False)
    content['extra'] = Malicious(os.system, f'touch {mark}')
    torch.save(content, path)


def printed_miou(text: str) -> float:
    """The last mIoU in what a tool printed, in percent."""
    return float(re.findall(r'mIoU: ([\d.]+)', text)[-1])


def fused_or_skip():
    """Fused optimizers for CPUs came with PyTorch 2.4."""
    try:
        torch.optim.AdamW([torch.ones(1, device=get_device(), requires_grad=True)], fused=True)
    except RuntimeError as error:
        pytest.skip(str(error))
