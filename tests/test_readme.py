"""The README's commands run as they stand there, and those that need more name tools and options that exist."""
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils import ROOT, TOY, save_checkpoint

README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'^```(\w+)\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)  # bash runs here, sh needs more


def commands(language):
    """Each command of the blocks of a language, continued lines joined."""
    text = ''.join(block for name, block in BLOCKS if name == language).replace('\\\n', ' ')
    return [line for line in text.splitlines() if line.strip()]


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


def run_in_shell(lines, cwd):
    script = 'set -e -o pipefail\n' + '\n'.join(f'echo {shlex.quote("$ " + line)}\n{line}' for line in lines)
    result = subprocess.run(['bash', '-c', script], cwd=cwd, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=900)
    assert result.returncode == 0, result.stdout[-6000:]


def test_the_commands_run_from_the_first_to_the_last(checkout):
    lines = [line for line in commands('bash') if not line.startswith('make ')]  # a clean clone has them by itself
    assert len(lines) > 10 and all(word in ' '.join(lines) for word in ('infer.py', 'test.py', 'check_checkpoint.py'))
    lines = [f'timeout 5 {line} || [ $? = 124 ]' if 'tools/app.py' in line else line for line in lines]
    run_in_shell(lines, checkout)
    assert (checkout / 'results/toy/toy_validation_00000_overlay.jpg').is_file()


def test_the_python_blocks_run(checkout):
    blocks = [block for name, block in BLOCKS if name == 'python']
    assert any('Segmenter' in block for block in blocks)
    for block in blocks:
        subprocess.run([sys.executable, '-c', block], cwd=checkout, check=True, timeout=300)


@pytest.mark.parametrize('line', commands('sh'))
def test_what_is_not_run_names_tools_and_options_that_exist(line):
    words = shlex.split(line, comments=True)
    tools = [word for word in words if re.match(r'(\.\./)?tools/\w+\.(py|sh)$', word)]
    configs = [word for word in words if word.endswith('_ade20k.py') and '{' not in word]
    folder = ROOT / 'configs' if any(word.startswith('../') for word in words) else ROOT
    assert words[0] in ('cd', 'pip', 'make', 'trtexec') or tools
    for path in tools + configs:
        assert (folder / path).is_file(), path
    for tool in (tool for tool in tools if tool.endswith('.py')):
        text = (folder / tool).read_text()
        for option in (word.partition('=')[0] for word in words if word.startswith('--')):
            assert f"'{option}'" in text or option in ('--runs', '--cfg-options'), f'{tool} has no {option}'
