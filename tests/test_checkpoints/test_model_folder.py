"""A model folder loads anywhere, is data only, and is refused if it is anything else."""
import json
import re
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.apis import check_checkpoint, evaluate, publish_checkpoint, publish_folder, train
from mmseg_inceptionnext.checkpoints import load_source, safe_checkpoints
from mmseg_inceptionnext.checkpoints.hub import fetch_folder, push_folder
from mmseg_inceptionnext.checkpoints.model_folder import NEEDED
from mmseg_inceptionnext.errors import CheckpointError, InputError, UserError
from mmseg_inceptionnext.models.backbones.pretrained import load_pretrained

from hostile import FOLDERS, write_folders
from utils import TOY, content, narrow, run, run_tool, save_checkpoint, short_config

COMMIT = '0123456789abcdef0123456789abcdef01234567'
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)


# Of each kind one; the slow run has them all, and tests/test_hostile.py watches what they do.
SOME = ('a foreign class', 'a scope', 'a path', 'weights that are a pickle', 'a weight of 8 bits',
        'a weight that is NaN', 'a link for config.json')


def make_small(model):
    narrow(model)
    model.backbone.arch = dict(model.backbone.arch, depths=[1] * 4)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """With the metrics that tools/test.py wrote of it."""
    path = tmp_path_factory.mktemp('checkpoint') / 'toy.pth'
    metrics = dict(mIoU=12.345, aAcc=50., protocol=dict(name='ss', views=1), checkpoint=f'work/{path.name}')
    (path.parent / 'metrics.json').write_text(json.dumps({**metrics, 'IoU/wall': 1.}))
    return save_checkpoint(TOY, path, change=make_small, iter=800)


@pytest.fixture(scope='module')
def expected(checkpoint):
    return Segmenter(checkpoint)(IMAGE).mask


@pytest.fixture(scope='module')
def folder(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp('folder') / 'model'
    assert publish_folder(str(checkpoint), str(path)) == str(path)
    return path


@pytest.fixture(scope='module')
def fused(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp('fused')
    Segmenter(checkpoint, fuse_model=True).save_pretrained(path)
    return path


def test_a_folder_predicts_as_the_checkpoint(checkpoint, folder, expected, tmp_path):
    assert {path.name for path in folder.iterdir()} == {*NEEDED, 'README.md'}
    assert len(np.unique(expected)) > 5
    segmenter = Segmenter.from_pretrained(folder)
    np.testing.assert_array_equal(segmenter(IMAGE).mask, expected)
    weights = load_source(str(folder))['state_dict']
    own = content(checkpoint)['state_dict']
    assert weights.keys() == own.keys() and all(torch.equal(value, own[key]) for key, value in weights.items())
    (tmp_path / 'mine.txt').write_text('stays')
    (tmp_path / 'config.json').write_text('an earlier model')
    segmenter.save_pretrained(tmp_path)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in NEEDED)
    assert (tmp_path / 'mine.txt').read_text() == 'stays' and len(list(tmp_path.iterdir())) == len(NEEDED) + 2
    assert check_checkpoint(str(folder))[1] == ''


def test_the_card_says_what_is_known_and_its_code_runs(folder, monkeypatch, capsys):
    card = (folder / 'README.md').read_text()
    for words in ('| model | MemoryEfficientEncoderDecoder, InceptionNeXt, ', '| mIoU | 12.35 % |',
                  '| aAcc | 50.00 % |', '| trained | 800 iterations |', '| data set | ADEChallengeDataset |',
                  '# model\n', 'wall, building',
                  '| protocol | name "ss", views 1 |'):
        assert words in card, words
    assert str(folder.parent) not in card and 'IoU/wall' not in card
    code, = re.findall(r'^```python\n(.*?)^```$', card, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    exec(code, {})
    assert '(256, 384)' in capsys.readouterr().out


@pytest.mark.slow
def test_metrics_of_another_checkpoint_are_not_told(checkpoint, tmp_path):
    copied = shutil.copy(checkpoint, tmp_path / 'other.pth')
    shutil.copy(checkpoint.parent / 'metrics.json', tmp_path)
    publish_folder(str(copied), str(tmp_path / 'model'))
    assert 'mIoU' not in (tmp_path / 'model/README.md').read_text()


def test_a_fused_folder_predicts_as_a_fused_model(checkpoint, fused):
    expected = Segmenter(checkpoint, fuse_model=True)(IMAGE).mask
    for options in ({}, dict(fuse_model=True)):
        np.testing.assert_array_equal(Segmenter(fused, **options)(IMAGE).mask, expected)
    assert check_checkpoint(str(fused))[1] == ''


@pytest.mark.parametrize('door', ['init_cfg', 'MMEngine', 'publish', *(
    pytest.param(door, marks=pytest.mark.slow) for door in ('load_from', 'resume', 'test'))])
def test_a_fused_folder_is_not_trained(fused, tmp_path, request, door):
    def configured(**options):
        return short_config(request.getfixturevalue('toy_root'), tmp_path, **options)

    enter = dict(
        init_cfg=lambda path: load_pretrained(torch.nn.Conv2d(1, 1, 1), path),
        MMEngine=lambda path: load_checkpoint(torch.nn.Conv2d(1, 1, 1), path),
        publish=lambda path: publish_checkpoint(path, str(tmp_path / 'a.pth')),
        load_from=lambda path: train(configured(load_from=path)), resume=lambda path: train(configured(), resume=path),
        test=lambda path: evaluate(configured(), path))[door]
    with safe_checkpoints(), pytest.raises(CheckpointError, match='holds a fused model, .* Take the checkpoint that'):
        enter(str(fused))


@pytest.mark.slow
def test_tools_take_a_folder(folder, checkpoint, toy_root, tmp_path):
    image = toy_root / 'images/validation/toy_validation_00000.jpg'
    run_tool('tools/publish_checkpoint.py', checkpoint, '--folder', tmp_path / 'fused', '--fuse')
    run_tool('tools/infer.py', tmp_path / 'fused', image, '--out-dir', tmp_path / 'out')
    assert (tmp_path / 'out/toy_validation_00000.png').is_file()
    def configured(name, **options):
        cfg = short_config(toy_root, tmp_path / name, **options)
        make_small(cfg.model)
        return cfg

    metrics = [evaluate(configured('test'), str(source)) for source in (folder, checkpoint)]
    np.testing.assert_equal(*metrics)  # NaN, too
    train(configured('work', load_from=str(folder)))
    result = run_tool('tools/publish_checkpoint.py', checkpoint, check=False)
    assert result.returncode == 2 and '--folder DIR' in result.stdout


def test_what_cannot_be_saved_or_loaded_is_explained(checkpoint, tmp_path):
    with pytest.raises(InputError, match='--amp bf16 cast the weights'):
        Segmenter(checkpoint, amp='bf16').save_pretrained(tmp_path)
    with pytest.raises(InputError, match='user/name: no such folder; .* hf://USER/NAME'):
        Segmenter.from_pretrained('user/name')
    with pytest.raises(CheckpointError, match='hf://name is no name of a model'):
        Segmenter.from_pretrained('hf://name')
    with pytest.raises(CheckpointError, match='/model.safetensors is not there: a model folder holds model.sa'):
        Segmenter.from_pretrained(tmp_path)
    with pytest.raises(InputError, match='--push name: allowed is USER/NAME'):
        publish_folder(str(checkpoint), str(tmp_path), push='name')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('change, words', [
    (lambda files: files.pop('data_preprocessor'),
     'has no data_preprocessor, .*SegDataPreProcessor.*preprocessor.json'),
    (lambda files: files['data_preprocessor'].update(std=[1, 0, 1]), r'std is \[1, 0, 1\]: .* above 0'),
    (lambda files: files['data_preprocessor'].update(mean=[1, float('nan'), 1]),
     'mean is .*nan.*: allowed are finite')])
def test_a_preprocessor_that_cannot_normalise_is_refused(folder, tmp_path, change, words):
    shutil.copytree(folder, tmp_path / 'model')
    path = tmp_path / 'model/preprocessor.json'
    files = json.loads(path.read_text())
    change(files)
    path.write_text(json.dumps(files))
    with pytest.raises(InputError, match=f'{tmp_path}/model: .*{words}'):
        Segmenter(tmp_path / 'model')


def test_a_folder_that_is_not_written_to_the_end_is_refused(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / 'model')
    segmenter = Segmenter(folder)

    def fail(content, path):
        raise OSError(28, 'No space left on device', path)

    monkeypatch.setattr('mmseg_inceptionnext.checkpoints.model_folder.write_atomically', fail)
    with pytest.raises(InputError, match='model cannot be written: No space left on device'):
        segmenter.save_pretrained(tmp_path / 'model')
    with pytest.raises(CheckpointError, match='config.json is not there'):
        load_source(str(tmp_path / 'model'))


@pytest.mark.parametrize('names', [SOME, pytest.param(FOLDERS, marks=pytest.mark.slow)], ids=['some', 'all'])
def test_hostile_folders_are_refused_in_both_threads_of_two(folder, tmp_path, names):
    """One thread trusts, which changes nothing: what a folder says is data, whoever made it."""
    write_folders(folder, tmp_path, names)
    found, tried = {}, {False: [*names], True: [name for name in names if name != 'a huge model']}

    def load(trust):
        for name in tried[trust]:  # who trusts may take a model of any size
            try:
                Segmenter(str(tmp_path / name), trust_checkpoint=trust)
                found[name, trust] = 'loaded'
            except UserError as error:
                found[name, trust] = str(error)
            except Exception as error:
                found[name, trust] = repr(error)

    threads = [threading.Thread(target=load, args=(trust, )) for trust in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == sum(map(len, tried.values())) and not (tmp_path / 'mark').exists()
    for (name, trust), text in found.items():
        assert FOLDERS[name][1] in text and str(tmp_path / name) in text and len(text) < 2500, (name, trust, text)
    with safe_checkpoints(trust=True), pytest.raises(CheckpointError):
        load_source(str(tmp_path / 'weights that are a pickle'))
    assert not (tmp_path / 'mark').exists()


@pytest.fixture
def cached(folder, tmp_path, monkeypatch):
    """The hub's cache with ``someone/model`` in it, as its client lays it out, and no network."""
    home = tmp_path / 'models--someone--model'
    for path in (home / 'blobs', home / 'refs', home / 'snapshots' / COMMIT):
        path.mkdir(parents=True)
    (home / 'refs/main').write_text(COMMIT)
    for name in NEEDED:
        shutil.copy(folder / name, home / 'blobs' / f'blob of {name}')
        (home / 'snapshots' / COMMIT / name).symlink_to(f'../../blobs/blob of {name}')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    return home / 'snapshots' / COMMIT


def test_a_name_on_the_hub_is_found_in_the_cache(cached, expected):
    for source in ('hf://someone/model', 'hf://someone/model@main', f'hf://someone/model@{COMMIT}', str(cached)):
        assert load_source(source)['state_dict']
    np.testing.assert_array_equal(Segmenter.from_pretrained('hf://someone/model')(IMAGE).mask, expected)
    with pytest.raises(CheckpointError, match='hf://someone/other cannot be had from the hub: .*\n.*elsewhere'):
        fetch_folder('hf://someone/other')


def test_pushing_uploads_the_files_of_the_folder_only(checkpoint, tmp_path, monkeypatch):
    calls, refusal = [], OSError('401 Client Error')
    refusal.response = SimpleNamespace(status_code=401)

    class Client:

        def create_repo(self, *args, **kwargs):
            calls.append((args, kwargs))

        def upload_folder(self, **kwargs):
            calls.append(kwargs)
            if kwargs['repo_id'] == 'some/full':
                raise ConnectionError('no network')
            if kwargs['repo_id'] == 'some/secret':
                raise refusal

    monkeypatch.setattr(huggingface_hub, 'HfApi', Client)
    (tmp_path / 'secret.txt').touch()
    assert publish_folder(str(checkpoint), str(tmp_path), push='someone/toy') == 'hf://someone/toy'
    assert calls[0] == (('someone/toy', ), dict(exist_ok=True)) and calls[1]['folder_path'] == str(tmp_path)
    assert set(calls[1]['allow_patterns']) == {*NEEDED, 'README.md'}
    assert "Segmenter.from_pretrained('hf://someone/toy')" in (tmp_path / 'README.md').read_text()
    with pytest.raises(InputError, match='is complete, but could not be uploaded to some/full: no network\nCall again'):
        push_folder(str(tmp_path), 'some/full')
    with pytest.raises(InputError, match='some/secret: 401 Client Error\nLog in by the command "hf auth login"'):
        push_folder(str(tmp_path), 'some/secret')


HUB_SERVER = '''
import http.server, json, os, sys
folder, commit = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body, **headers):
        self.send_response(200)
        for key, value in {'Content-Length': len(body), 'Content-Type': 'application/json', **headers}.items():
            self.send_header(key.replace('_', '-'), str(value))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(body)

    def do_GET(self):
        print(self.command, self.path, file=sys.stderr, flush=True)
        names = [*os.listdir(folder), 'evil.py']
        path, name = self.path.partition('?')[0], os.path.basename(self.path)
        if path.startswith('/api/models/someone/model/tree/'):
            return self.answer(json.dumps([dict(type='file', path=n, size=9, oid=n) for n in names]).encode())
        if path.startswith('/api/models/someone/model'):
            return self.answer(json.dumps(dict(
                _id='1', id='someone/model', sha=commit, siblings=[dict(rfilename=n) for n in names])).encode())
        if path.startswith('/someone/model/resolve/'):
            with open(os.path.join(folder, name), 'rb') as file:
                return self.answer(file.read(), ETag=f'"{name}"', X_Repo_Commit=commit)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
'''


@pytest.mark.slow
def test_a_model_is_downloaded_from_a_hub_and_then_taken_from_the_cache(folder, expected, tmp_path):
    (tmp_path / 'server.py').write_text(HUB_SERVER)
    program = ("import sys, numpy as np\nfrom mmseg_inceptionnext import Segmenter\n"
               "image = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)\n"
               "np.save(sys.argv[1], Segmenter.from_pretrained('hf://someone/model@main')(image).mask)")
    with open(tmp_path / 'asked', 'w') as asked, subprocess.Popen(
            [sys.executable, tmp_path / 'server.py', folder, COMMIT], stdout=subprocess.PIPE, stderr=asked) as server:
        try:
            address = f'http://127.0.0.1:{int(server.stdout.readline())}'
            settings = dict(HF_HOME=tmp_path / 'cache', HF_ENDPOINT=address, HF_HUB_DISABLE_XET='1')
            settings = {key: str(value) for key, value in settings.items()}
            run(sys.executable, '-c', program, tmp_path / 'online.npy', **settings)
        finally:
            server.kill()
    run(sys.executable, '-c', program, tmp_path / 'offline.npy', HF_HUB_OFFLINE='1', **settings)
    for name in ('online', 'offline'):
        np.testing.assert_array_equal(np.load(tmp_path / f'{name}.npy'), expected)
    asked = (tmp_path / 'asked').read_text()
    assert 'resolve' in asked and 'evil.py' not in asked and 'README.md' not in asked
