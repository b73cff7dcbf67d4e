"""The README's commands run as they stand there, and those that need more name tools and options that exist."""
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmseg.registry import VISUALIZERS
from scripts.readme_on_a_clean_clone import as_script, commands, read_blocks

from utils import ROOT, TOY, save_checkpoint

BLOCKS = read_blocks(ROOT / 'README.md')  # bash and python run here, sh needs more


@pytest.fixture(scope='module')
def checkout(tmp_path_factory, toy_root):
    """What `make demo` leaves, with little data and random weights."""
    root = tmp_path_factory.mktemp('checkout')
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, root / name)
    shutil.copytree(toy_root, root / 'data/toy_ade20k')
    (root / 'work_dirs/demo').mkdir(parents=True)
    save_checkpoint(TOY, root / 'work_dirs/demo/iter_800.pth')
    log = root / 'work_dirs/demo/20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"lr": 0.001, "loss": 2.0, "iter": 50, "step": 50}\n'
                   '{"lr": 0.0005, "loss": 1.0, "iter": 100, "step": 100}\n{"mIoU": 40.0, "step": 100}\n')
    (root / '.venv/bin').mkdir(parents=True)
    (root / '.venv/bin/activate').write_text(f'PATH={Path(sys.executable).parent}:$PATH\n')
    return root


def test_everything_runs_from_the_first_line_to_the_last(checkout):
    script = as_script(BLOCKS, leave_out='make ')  # what make does is there
    for word in ('infer.py', 'test.py', 'app.py', 'export_onnx.py', 'plot_log.py', 'Segmenter', 'onnxruntime'):
        assert word in script
    result = subprocess.run(['bash', '-c', script], cwd=checkout, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=900)
    assert result.returncode == 0, result.stdout[-6000:]
    assert 'the page is at http://127.0.0.1:' in result.stdout
    for path in ('toy/toy_validation_00000_overlay.jpg', 'model.onnx', 'onnx/toy_validation_00000.png', 'curves.png'):
        assert (checkout / 'results' / path).is_file()


@pytest.mark.parametrize('line', commands(BLOCKS, 'sh'))
def test_what_is_not_run_names_tools_and_options_that_exist(line):
    words = shlex.split(line, comments=True)
    tools = [word for word in words if re.match(r'(\.\./)?tools/\w+\.(py|sh)$', word)]
    configs = [word for word in words if word.endswith('_ade20k.py') and '{' not in word]
    folder = ROOT / 'configs' if any(word.startswith('../') for word in words) else ROOT
    assert words[0] == 'cd' or tools
    for path in tools + configs:
        assert (folder / path).is_file(), path
    for tool in (tool for tool in tools if tool.endswith('.py')):
        text = (folder / tool).read_text()
        for option in (word.partition('=')[0] for word in words if word.startswith('--')):
            assert f"'{option}'" in text, f'{tool} has no {option}'


def test_the_visualizer_for_tensorboard_writes_its_events(tmp_path):
    block, = [text for language, text in BLOCKS if language == 'python' and 'TensorboardVisBackend' in text]
    cfg = {}
    exec(block, cfg)
    visualizer = VISUALIZERS.build(dict(cfg['visualizer'], name='tensorboard', save_dir=str(tmp_path)))
    visualizer.add_scalar('loss', 0.5, step=3)
    visualizer.close()
    folder = tmp_path / 'vis_data'
    assert (folder / 'scalars.json').read_text().strip() == '{"loss": 0.5, "step": 3}'
    events, = folder.glob('events.out.tfevents*')
    assert b'loss' in events.read_bytes()
