"""Hostile checkpoints, at every door: each ends in a sentence, soon, in little memory; nothing is run, read or fetched.

Each door is tried in a process of its own, by ``python tests/test_hostile.py DOOR ...``, which a hook of the
interpreter watches.
"""
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import mmengine.runner.runner as runner_module
import pytest
from mmengine.config import Config

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.apis import check_checkpoint, evaluate, publish_checkpoint, train
from mmseg_inceptionnext.errors import CheckpointError, ConfigError
from mmseg_inceptionnext.models import InceptionNeXt
from mmseg_inceptionnext.models.backbones.pretrained import load_pretrained

from hostile import CONFIGS, FILES, FOLDERS, write_files, write_folders
from utils import ROOT, run, short_config

SECONDS, BYTES = 20, 2 << 30
# Where a config inside a checkpoint is not read, and neither are the names and colours of the classes.
OF_WEIGHTS = ('runs a function', 'a dtype that makes numbers into addresses', 'a history of no numbers', 'NaN weights',
              'a sparse weight', 'a weight that is a number', 'a changed bit', 'compressed', 'integer names',
              'meta that is a text', 'numbers that are not there')
NOT_LOOKED_AT = ('names a function', 'loads by a client', 'colours that are texts',
                 'an iteration that is nested tuples')
EVENTS = ('os.system', 'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.fork', 'socket.connect',
          'socket.getaddrinfo', 'urllib.Request')


@pytest.fixture(scope='module')
def files(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('hostile')
    train(short_config(toy_root, folder, 1, 1))
    (folder / 'iter_1.pth').rename(folder / 'good.pth')
    write_files(folder / 'good.pth', folder)
    (folder / 'words').write_text('')
    return folder


@pytest.mark.parametrize('door', ['infer', *(
    pytest.param(door, marks=pytest.mark.slow)
    for door in ('test', 'check', 'publish', 'pretrained', 'resume', 'load_from', 'folder'))])
def test_nothing_but_a_sentence_comes_of_it(files, toy_root, tmp_path, door):
    result = run(sys.executable, __file__, door, files, toy_root, cwd=tmp_path, TMPDIR=tmp_path)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop('good') == 'fine', found
    assert found.pop('bytes') < BYTES
    harmless = NOT_LOOKED_AT if door in ('resume', 'load_from', 'test') else NOT_LOOKED_AT[-1:]
    assert {name: outcome for name, outcome in found.items() if outcome != 'a sentence' and not (
        outcome == 'fine' and name in harmless)} == {}
    assert len(found) > 10 and not (files / 'mark').exists()


def main(door, folder, toy_root):
    image = toy_root / 'images/validation/toy_validation_00000.jpg'
    backbone = short_config(toy_root, '.').model.backbone

    def check(path):
        problem = check_checkpoint(path)[1]
        if problem:
            raise CheckpointError(problem)

    def configured(**options):
        return short_config(toy_root, Path(tempfile.mkdtemp(dir='.')), 2, 9, **options)

    enter = dict(
        infer=lambda path: Segmenter(path)(str(image)), check=check, folder=lambda path: Segmenter(path)(str(image)),
        publish=lambda path: publish_checkpoint(path, 'out.pth'),
        pretrained=lambda path: load_pretrained(InceptionNeXt(backbone.arch), path),
        resume=lambda path: train(configured(), resume=path),
        load_from=lambda path: train(configured(load_from=path)),
        test=lambda path: evaluate(configured(), path))[door]
    Config.pretty_text = property(lambda self: '')  # MMEngine logs it and saves it, which takes a second each time,
    runner_module.collect_env = dict  # and asks programs for their versions
    names = [*OF_WEIGHTS, *NOT_LOOKED_AT] if door in ('resume', 'load_from', 'test') else [*FILES, *CONFIGS]
    if door == 'pretrained':
        names = [name for name in FILES if 'class' not in name and 'colours' not in name and 'iteration' not in name]
    suffix, seen = '.pth', []
    if door == 'folder':
        Segmenter(folder / 'good.pth').save_pretrained('good')
        folder, suffix, names = Path.cwd(), '', [*FOLDERS]
        write_folders(folder / 'good', folder)
    enter(str(folder / f'good{suffix}'))  # imports, and caches of files that are ours
    given = None

    def watch(event, arguments):
        if given is None or (event, arguments[0]) == ('subprocess.Popen', 'git'):  # by which MMEngine knows its commit
            return
        path = arguments[0] if event == 'open' and not isinstance(arguments[0], int) else given
        if event in EVENTS or _is_foreign(os.path.abspath(os.fsdecode(path)), given, toy_root):
            seen.append(f'{event} {arguments[0]}')

    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    found = {}
    for name in ['good', *names]:
        given = str(folder / f'{name}{suffix}')
        signal.alarm(SECONDS)
        try:
            enter(given)
            found[name] = 'fine'
        except (CheckpointError, ConfigError, ValueError) as error:
            is_sentence = given in str(error) and len(str(error)) < 2500
            found[name] = 'a sentence' if is_sentence else f'{type(error).__name__}: {str(error)[:500]}'
        except BaseException as error:
            found[name] = f'{type(error).__name__}: {str(error)[:500]}'
        signal.alarm(0)
        given = None
        if seen:
            found[name] = f'it did {seen[:5]}'
            seen.clear()
    status = Path('/proc/self/status').read_text()  # getrusage has the peak of the process that started this one, too
    found['bytes'] = int(re.search(r'VmHWM:\s+(\d+)', status)[1]) << 10
    print(json.dumps(found))


def _is_foreign(path, given, toy_root):
    """Whether a file is neither the one given, nor ours, nor the data's, nor of the system."""
    ours = (given, os.getcwd(), str(toy_root), str(ROOT), sys.prefix, sys.base_prefix, '/proc', '/sys', '/dev')
    return not path.startswith(ours)


if __name__ == '__main__':
    main(sys.argv[1], *map(Path, sys.argv[2:]))
