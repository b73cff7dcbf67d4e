"""Where checkpoints come from, and what they say of themselves."""
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from mmseg_inceptionnext.checkpoints import load_source, sources
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.errors import CheckpointError

from utils import run

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


@pytest.mark.slow
def test_timms_cache_is_used_offline(tmp_path, weights):
    folder = tmp_path / 'hf/hub' / f'models--{HUB_ID.replace("/", "--")}'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs/main').write_text(COMMIT)
    (folder / 'snapshots' / COMMIT).mkdir(parents=True)
    shutil.copy(tmp_path / 'model.safetensors', folder / 'snapshots' / COMMIT)
    result = load_through_hub(tmp_path, HF_HUB_OFFLINE='1')
    assert result.returncode == 0, result.stdout
    assert 'tensors from timm://inception_next_atto.sail_in1k; ignored head.* (6)' in result.stdout
    assert_loaded(tmp_path, weights)


def test_what_the_hub_does_not_give_is_explained(monkeypatch):
    def fail(hub_id, weights_only):
        raise ConnectionError(f'no way to {hub_id}')

    monkeypatch.setattr(sources, 'load_state_dict_from_hf', fail)
    with pytest.raises(CheckpointError) as error:
        load_source('timm://inception_next_atto.sail_in1k')
    for words in ('timm://inception_next_atto.sail_in1k', f'no way to {HUB_ID}', f'model.safetensors of {HUB_ID}',
                  'init_cfg.checkpoint=model.safetensors'):
        assert words in str(error.value)


@pytest.mark.slow
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
