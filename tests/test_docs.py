"""The code of docs/extend.md and docs/train.md runs, links lead somewhere, and every option has a line."""
import importlib
import os
import re
import shutil
import sys
from inspect import signature
from pathlib import Path

import mmseg
import pytest
import yaml
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_inceptionnext import __version__
from mmseg_inceptionnext.config import load_config

from utils import ROOT, SHORT, run_tool

# Parts of messages of this package that docs/troubleshooting.md explains.
MESSAGES = (
    'cannot run on what is installed here', 'does not fit the backbone, so nothing was loaded',
    'which is not among the data that MMEngine saves', 'could not be downloaded', 'cannot be had from the hub',
    'do not fit the model of the config', 'is not a folder', 'holds no file that ends in', 'are out of range',
    'but the dataset names', 'the loss was not finite in', 'cannot be resumed from',
    'pools it to one pixel, of which BatchNorm has no variance', 'is no setting', 'which is not known',
    'cannot be used: ', 'with the settings of this config fails', 'channels: set it to that',
    'which never ends, so that', 'is in no name of a parameter',
    'neither the checkpoint nor the dataset of the config names the classes')
PAGES = [ROOT / 'README.md', ROOT / 'SECURITY.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXT = {page: page.read_text() for page in PAGES}


def files_in(text):
    """The Python blocks whose first line names a file, by that name."""
    return dict(re.findall(r'^```python\n# (\S+\.py)\n(.*?)^```$', text, re.MULTILINE | re.DOTALL))


EXTEND = {title: files_in(section) for title, section in re.findall(
    r'^## (A .*?)\n(.*?)(?=^## )', TEXT[ROOT / 'docs/extend.md'], re.MULTILINE | re.DOTALL)}
PROJECT = files_in(TEXT[ROOT / 'docs/extend.md'].partition('## Your own project')[2])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the configs, from which Python imports."""
    root = tmp_path / 'checkout'
    shutil.copytree(ROOT / 'configs', root / 'configs')
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    yield root
    for name in [name for name in sys.modules if name.partition('.')[0] == 'street']:
        del sys.modules[name]


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize('title', EXTEND)
def test_an_extension_is_a_class_a_config_and_a_test_that_passes(title, checkout, tmp_path, monkeypatch):
    files = EXTEND[title]
    assert [name.partition('/')[0] for name in files] == ['street', 'configs', 'tests']
    write(checkout, files)
    monkeypatch.syspath_prepend(str(checkout / 'tests'))
    importlib.invalidate_caches()
    module = importlib.import_module(list(files)[-1][len('tests/'):-len('.py')])
    tests = [value for name, value in vars(module).items() if name.startswith('test_')]
    assert tests
    for test in tests:
        test(**{'tmp_path': tmp_path / 'data'} if signature(test).parameters else {})


def test_extensions_of_each_kind_are_shown():
    assert list(EXTEND) == ['A token mixer', 'A data set', 'A head', 'A metric']


@pytest.mark.slow
@pytest.mark.parametrize('tool', [ROOT / 'tools/train.py', Path(mmseg.__path__[0]) / '.mim/tools/train.py'])
def test_a_project_elsewhere_trains_by_the_tools_of_both(tool, tmp_path):
    if not tool.is_file():
        pytest.skip('MMSegmentation was installed without its tools')
    write(tmp_path, PROJECT)
    for folder in ('images/train', 'images/val', 'labels/train', 'labels/val'):
        (tmp_path / 'data/cells' / folder).mkdir(parents=True)
        Image.new('L', (96, 64), 1).save(tmp_path / 'data/cells' / folder / 'a.png')
    result = run_tool(tool, 'cells/config.py', '--work-dir', 'work', '--cfg-options', *SHORT,
                      'train_dataloader.batch_size=2', cwd=tmp_path, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert (tmp_path / 'work/iter_2.pth').is_file() and 'share_error' in result.stdout


def test_own_data_needs_a_config_only(checkout):
    (name, content), = files_in(TEXT[ROOT / 'docs/train.md']).items()
    write(checkout, {name: content})
    cfg = load_config(name, dict(data_root='elsewhere'))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build(dict(loader.dataset, lazy_init=True))
        assert dataset.data_root == 'elsewhere' and not dataset.reduce_zero_label
        assert len(dataset.metainfo['classes']) == cfg.model.decode_head.num_classes == 3
    assert cfg.param_scheduler[0].end == cfg.train_cfg.max_iters


def headings(text):
    """The anchors of a page, as GitHub makes them."""
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')
            for title in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r'\]\((?!https?:)([^)]+)\)', TEXT[page]):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in headings(TEXT[target]), link


def test_every_page_is_linked_from_the_readme_which_is_short():
    readme = TEXT[ROOT / 'README.md']
    assert all(f'(docs/{page.name})' in readme for page in (ROOT / 'docs').glob('*.md'))
    assert len(readme.splitlines()) <= 170


def test_the_citation_names_this_version_and_the_paper():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert cited['version'] == __version__ and cited['cff-version'] == '1.2.0'
    assert cited['preferred-citation']['title'] in TEXT[ROOT / 'README.md'].replace('{', '').replace('}', '')


@pytest.mark.parametrize('tool', sorted((ROOT / 'tools').glob('*.py')), ids=lambda path: path.name)
def test_every_option_of_a_tool_stands_in_the_docs(tool):
    options = re.findall(r"add_argument\(\s*'(--[\w-]+)'(?!.*SUPPRESS)", tool.read_text())
    documented = ' '.join(TEXT.values())
    assert not [option for option in options if not re.search(rf'{option}(?![\w-])', documented)]


@pytest.mark.parametrize('message', MESSAGES)
def test_messages_that_are_explained_are_those_of_the_code(message):
    source = ''.join(path.read_text() for path in (ROOT / 'mmseg_inceptionnext').rglob('*.py'))
    assert message in re.sub(r"['\"]\s*\n\s*f?['\"]", '', source)  # literals over several lines
    assert message in ' '.join(TEXT[ROOT / 'docs/troubleshooting.md'].split())
