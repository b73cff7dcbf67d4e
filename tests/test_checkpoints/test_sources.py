"""Where checkpoints come from, and that MMEngine reads all of its own in the same way."""
import json
import os
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import mmengine.registry.registry as registry_module
import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import timm
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmseg_inceptionnext.checkpoints import load_source, safe_checkpoints
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

from utils import Malicious, run

HUB_ID = 'timm/inception_next_atto.sail_in1k'
COMMIT = '0' * 40
LOAD = '''
import sys, torch
from mmseg_inceptionnext.models import InceptionNeXt
model = InceptionNeXt('atto', init_cfg=dict(type='Pretrained', checkpoint='timm://inception_next_atto.sail_in1k'))
model.init_weights()
torch.save(model.state_dict(), sys.argv[1])
'''


def load_through_hub(tmp_path, **env):
    """Loads ``timm://...`` in a fresh process, since the hub's client reads its settings when it is imported."""
    (tmp_path / 'load.py').write_text(LOAD)
    env = dict(HF_HOME=str(tmp_path / 'hf'), HF_HUB_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_XET='1', **env)
    return run(sys.executable, tmp_path / 'load.py', tmp_path / 'loaded.pth', check=False, **env)


@pytest.fixture
def weights(tmp_path):
    state = timm.create_model('inception_next_atto').state_dict()
    save_file(state, tmp_path / 'model.safetensors')
    return state


def assert_loaded(tmp_path, weights):
    loaded = torch.load(tmp_path / 'loaded.pth', weights_only=True)
    assert all(torch.equal(loaded[key], value) for key, value in weights.items() if not key.startswith('head.'))


def test_timms_cache_is_used_offline(tmp_path, weights):
    folder = tmp_path / 'hf/hub' / f'models--{HUB_ID.replace("/", "--")}'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs/main').write_text(COMMIT)
    (folder / 'snapshots' / COMMIT).mkdir(parents=True)
    shutil.copy(tmp_path / 'model.safetensors', folder / 'snapshots' / COMMIT)
    result = load_through_hub(tmp_path, HF_HUB_OFFLINE='1')
    assert result.returncode == 0, result.stdout
    assert 'tensors from timm://inception_next_atto.sail_in1k; ignored head.* (6); new: norm0, norm1, norm2, norm3' in result.stdout
    assert_loaded(tmp_path, weights)


def test_what_the_cache_has_not_is_explained(tmp_path):
    text = load_through_hub(tmp_path, HF_HUB_OFFLINE='1').stdout
    message = text[text.index('CheckpointError'):]
    for words in ('timm://inception_next_atto.sail_in1k cannot be had from the hub', f'model.safetensors of {HUB_ID}',
                  'init_cfg.checkpoint=model.safetensors'):
        assert words in message


def test_a_mirror_of_the_hub_is_used(tmp_path, weights):
    content = (tmp_path / 'model.safetensors').read_bytes()
    paths = []

    class Mirror(SimpleHTTPRequestHandler):

        def do_HEAD(self):
            paths.append(self.path)
            found = self.path == f'/{HUB_ID}/resolve/main/model.safetensors'
            self.send_response(200 if found else 404)
            self.send_header('ETag', '"abc"')
            self.send_header('X-Repo-Commit', COMMIT)
            self.send_header('Content-Length', str(len(content) if found else 0))
            self.end_headers()
            return found

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(('127.0.0.1', 0), Mirror)
    threading.Thread(target=http.serve_forever, args=(0.01, ), daemon=True).start()
    result = load_through_hub(tmp_path, HF_ENDPOINT=f'http://127.0.0.1:{http.server_port}', HF_HUB_OFFLINE='0')
    http.shutdown()
    http.server_close()
    assert result.returncode == 0, result.stdout[-3000:]
    assert paths
    assert_loaded(tmp_path, weights)


@pytest.mark.parametrize('tag', ['inception_next_tiny.no_such_tag', 'inception_next_huge', 'resnet99.a', ''])
def test_an_unknown_tag_lists_the_known_ones(tag):
    with pytest.raises(CheckpointError, match='is not known to timm') as error:
        load_source(f'timm://{tag}')
    assert 'inception_next_base.sail_in1k_384' in str(error.value)


def test_paths_of_every_kind(tmp_path, monkeypatch):
    torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / 'a b.pth')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for source in (f'{tmp_path}/a b.pth', f'file://{tmp_path}/a b.pth', f'file://{tmp_path}/a%20b.pth', '~/a b.pth',
                   'a b.pth', 'file://a b.pth'):
        assert load_source(source)['state_dict']['a'] == 1, source


@pytest.mark.parametrize('thing', [
    torch.ones(1), [1], dict(meta=3), dict(meta=dict(dataset_meta='x'))])
def test_what_is_no_checkpoint_is_named(tmp_path, thing):
    torch.save(thing, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth is no checkpoint'):
        load_source(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('classes,palette,words', [
    (3, None, 'its classes are no list'), ('abc', None, 'its classes are no list'), ([1, 2], None, 'each a text'),
    ([('a', )], None, 'each a text'), (['a' * 201], None, 'up to 200 characters'), (['a'] * 65537, None, '65536 names'),
    (dict(a=1), None, 'its classes are no list'), (['a'], [[1, 2]], 'its palette is no list of colours'),
    (['a'], [[-1, 300, 0]], 'from 0 to 255'), (['a'], [5], 'its palette'), (['a'], ['abc'], 'its palette'),
    (['a'], [[1., 2., 3.]], 'its palette'), (['a'], 7, 'its palette'), (['a'], [torch.ones(3)], 'its palette')])
def test_classes_that_are_none_are_named(classes, palette, words):
    loaded = LoadedCheckpoint(dict(meta=dict(dataset_meta=dict(classes=classes, palette=palette))), 'a.pth')
    with pytest.raises(CheckpointError, match=f'a.pth: .*{words}'):
        loaded.classes()


def test_classes_of_every_form():
    colors = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for classes in (('a', 'b\n'), ['a', 'b\n'], np.array(['a', 'b\n'])):
        for palette in (colors, colors.tolist(), list(colors), tuple(map(tuple, colors))):
            loaded = LoadedCheckpoint(dict(meta=dict(dataset_meta=dict(classes=classes, palette=palette))), 'a.pth')
            assert loaded.classes() == (('a', 'b?'), [[0, 1, 2], [3, 4, 5]])
    for meta in (None, {}, dict(dataset_meta=None), dict(dataset_meta=dict(classes=None))):
        assert LoadedCheckpoint(dict(meta=meta), 'a.pth').classes() == ((), [])


def test_mmengine_reads_every_source_as_data(tmp_path, monkeypatch):
    torch.save(dict(a=Malicious(open, str(tmp_path / 'mark'), 'w')), tmp_path / 'bad.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints/inceptionnext').mkdir(parents=True)
    shutil.copy(tmp_path / 'bad.pth', tmp_path / 'checkpoints/inceptionnext/inceptionnext_tiny.pth')
    before = dict(CheckpointLoader._schemes)
    with safe_checkpoints():
        for source in (str(tmp_path / 'bad.pth'), f'file://{tmp_path}/bad.pth',
                       'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth'):
            with pytest.raises(UnsafeCheckpointError, match='io.open|builtins.open'):
                CheckpointLoader.load_checkpoint(source)
        for source in ('s3://bucket/a.pth', 'petrel://bucket/a.pth', 'a:s3://bucket/a.pth', 'pavi://a.pth'):
            with pytest.raises(CheckpointError, match='this storage is not read here'):
                CheckpointLoader.load_checkpoint(source)
    assert dict(CheckpointLoader._schemes) == before
    assert not (tmp_path / 'mark').exists()
    with safe_checkpoints(trust=True):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'bad.pth'))
    assert (tmp_path / 'mark').exists()


def test_names_of_mmengines_model_zoo_come_down_to_our_reader(tmp_path, monkeypatch):
    url = 'https://download.openmmlab.com/some/resnet50.pth'
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text(json.dumps(dict(a_model=url)))
    monkeypatch.setattr('mmseg_inceptionnext.checkpoints.sources.download', lambda source: str(tmp_path / 'a.pth'))
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    with safe_checkpoints():
        assert CheckpointLoader.load_checkpoint('open-mmlab://a_model')['a'] == 1
        torch.save(Malicious(os.mkdir, str(tmp_path / 'mark')), tmp_path / 'a.pth')
        with pytest.raises(UnsafeCheckpointError):
            CheckpointLoader.load_checkpoint('open-mmlab://a_model')
    assert not (tmp_path / 'mark').exists()


def test_threads_do_not_take_each_others_trust(tmp_path):
    """A careful and a trusting one, which overlap in every way; MMEngine's tables stay as they were."""
    tables = CheckpointLoader._schemes, mmengine_checkpoint.load_from_http, registry_module.get_object_from_string
    schemes = dict(CheckpointLoader._schemes)
    torch.save(dict(a=Malicious(os.getcwd)), tmp_path / 'a.pth')
    path, barrier, wrong = str(tmp_path / 'a.pth'), threading.Barrier(2), []

    def read(trust):
        for turn in range(200):
            barrier.wait()
            try:
                with safe_checkpoints(trust):
                    found = CheckpointLoader.load_checkpoint(path, logger=None)['a']
                wrong.append((turn, found)) if not trust or found != os.getcwd() else None
            except UnsafeCheckpointError as error:
                wrong.append((turn, error)) if trust else None

    threads = [threading.Thread(target=read, args=(trust, )) for trust in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert tables == (
        CheckpointLoader._schemes, mmengine_checkpoint.load_from_http, registry_module.get_object_from_string)
    assert schemes == CheckpointLoader._schemes
