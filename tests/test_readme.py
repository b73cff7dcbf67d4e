"""The commands of the README and of docs/ run as they stand there; those that need more name what exists."""
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmseg.registry import VISUALIZERS
from scripts.readme_on_a_clean_clone import as_script, commands, pages, read_blocks

from utils import ROOT

BLOCKS = {path.relative_to(ROOT).as_posix(): read_blocks(path) for path in pages(ROOT)}
RUN = [page for page, blocks in BLOCKS.items() if {'bash', 'python'} & {language for language, _ in blocks}]
NOT_RUN = [pytest.param(line, id=f'{page}:{line}') for page, blocks in BLOCKS.items()
           for language, block in blocks if language == 'sh' for line in commands(block)]


@pytest.fixture
def checkout(tmp_path, trained, toy_root):
    """What `make demo` leaves, with little data and a short training."""
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(toy_root, tmp_path / 'data/toy_ade20k')
    shutil.copytree(trained, tmp_path / 'work_dirs/demo')
    (tmp_path / 'work_dirs/demo/iter_2.pth').rename(tmp_path / 'work_dirs/demo/iter_800.pth')
    (tmp_path / '.venv/bin').mkdir(parents=True)
    (tmp_path / '.venv/bin/activate').write_text(f'PATH={Path(sys.executable).parent}:$PATH\n')
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('page', RUN)
def test_everything_runs_from_the_first_line_to_the_last(page, checkout):
    script = as_script(BLOCKS[page], leave_out='make ')  # what make does is there
    result = subprocess.run(['bash', '-c', script], cwd=checkout, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=900)
    assert result.returncode == 0, result.stdout[-6000:]
    for folder in set(re.findall(r'--out-dir (results/[\w/]+)', script)):
        assert any((checkout / folder).iterdir()), f'{folder} is empty'
    for path in set(re.findall(r'--out (results/[\w/.]+)', script)):
        assert (checkout / path).exists(), f'{path} is missing'


def test_the_main_commands_are_among_them():
    script = '\n'.join(as_script(blocks) for blocks in BLOCKS.values())
    for words in ('tools/test.py', 'tools/infer.py', 'tools/app.py', 'tools/export_onnx.py',
                  'tools/check_checkpoint.py', 'tools/publish_checkpoint.py', 'Segmenter(', 'onnxruntime'):
        assert words in script


@pytest.mark.parametrize('line', NOT_RUN)
def test_what_is_not_run_names_tools_and_options_that_exist(line):
    words = shlex.split(line, comments=True)
    tools = [word for word in words if re.match(r'(\.\./)?(tools|tests/scripts)/\w+\.(py|sh)$', word)]
    configs = [word for word in words if word.endswith('_ade20k.py') and '{' not in word]
    folder = ROOT / 'configs' if any(word.startswith('../') for word in words) else ROOT
    for path in tools + configs:
        assert (folder / path).is_file(), path
    for tool in (tool for tool in tools if tool.endswith('.py')):
        text = (folder / tool).read_text() + (ROOT / 'mmseg_inceptionnext/cli.py').read_text()
        for option in (word.partition('=')[0] for word in words if word.startswith('--')):
            assert f"'{option}'" in text, f'{tool} has no {option}'


def test_links_between_pages_lead_somewhere():
    for page in pages(ROOT):
        for path, anchor in re.findall(r'\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)', page.read_text()):
            target = page.parent / path if path else page
            assert target.exists(), f'{page.name} links {path}'
            assert not anchor or anchor in anchors(target), f'{page.name} links {path}#{anchor}'


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return [re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings]


def test_the_visualizer_for_tensorboard_writes_its_events(tmp_path):
    block, = [text for blocks in BLOCKS.values() for language, text in blocks
              if language == 'python' and 'TensorboardVisBackend' in text]
    cfg = {}
    exec(block, cfg)
    visualizer = VISUALIZERS.build(dict(cfg['visualizer'], name='tensorboard', save_dir=str(tmp_path)))
    visualizer.add_scalar('loss', 0.5, step=3)
    visualizer.close()
    folder = tmp_path / 'vis_data'
    assert (folder / 'scalars.json').read_text().strip() == '{"loss": 0.5, "step": 3}'
    events, = folder.glob('events.out.tfevents*')
    assert b'loss' in events.read_bytes()
