"""MMEngine reads all checkpoints as data, and what makes it do so still finds what it holds on to."""
import inspect
import json
import os
import shutil
import threading

import mmengine
import mmengine.registry.registry as registry_module
import mmengine.runner.checkpoint as mmengine_checkpoint
import pytest
import torch
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader, Runner
from mmseg.registry import MODELS
from torch.nn.modules import module as torch_module

from mmseg_inceptionnext.checkpoints import guarded_build, patches, safe_checkpoints
from mmseg_inceptionnext.checkpoints.embedded_config import count_part
from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

from utils import Malicious

MOVED = f'MMEngine {mmengine.__version__} or PyTorch {torch.__version__} changed: look at checkpoints/patches.py. '


def names_in(function):
    """The global names and attributes that a function uses."""
    return inspect.unwrap(function).__code__.co_names


def test_every_scheme_of_mmengine_is_known():
    for scheme, loader in CheckpointLoader._schemes.items():
        is_ours = loader.__code__.co_filename == patches.__file__
        fetches_by_ours = 'load_from_http' in names_in(loader) and loader.__globals__ is vars(mmengine_checkpoint)
        assert is_ours or fetches_by_ours, f'{MOVED}{scheme!r} is read by {loader}, which is not guarded'
    assert mmengine_checkpoint.load_from_http is CheckpointLoader._schemes['http://']


def test_mmengine_reads_by_what_is_registered():
    for function, name in ((Runner.load_checkpoint, '_load_checkpoint'), (Runner.resume, 'load_checkpoint'),
                           (mmengine_checkpoint._load_checkpoint, 'CheckpointLoader'),
                           (CheckpointLoader.load_checkpoint, '_get_checkpoint_loader'),
                           (CheckpointLoader._get_checkpoint_loader, '_schemes')):
        assert name in names_in(function), f'{MOVED}{function.__qualname__} no longer uses {name}'


def test_a_registry_imports_by_what_is_replaced():
    original = patches._find_object.__defaults__[0]
    assert 'get_object_from_string' in names_in(Registry.get), f'{MOVED}Registry.get imports by another function'
    assert registry_module.get_object_from_string is patches._find_object
    assert list(inspect.signature(original).parameters) == ['obj_name'], f'{MOVED}{original} takes something else'
    assert isinstance(MODELS.module_dict, dict) and isinstance(MODELS.children, dict) and MODELS.scope == 'mmseg'


@pytest.mark.parametrize('kind', ['parameter', 'buffer', 'module'])
def test_pytorch_calls_the_hooks(kind):
    hooks = getattr(torch_module, f'_global_{kind}_registration_hooks')
    assert list(hooks.values()).count(count_part) == 1, f'{MOVED}no hook for each {kind}'


def test_every_source_is_read_as_data(tmp_path, monkeypatch):
    torch.save(dict(a=Malicious(open, str(tmp_path / 'mark'), 'w')), tmp_path / 'bad.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints/inceptionnext').mkdir(parents=True)
    shutil.copy(tmp_path / 'bad.pth', tmp_path / 'checkpoints/inceptionnext/inceptionnext_tiny.pth')
    with safe_checkpoints():
        for source in (str(tmp_path / 'bad.pth'), f'file://{tmp_path}/bad.pth',
                       'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth'):
            with pytest.raises(UnsafeCheckpointError, match='io.open|builtins.open'):
                CheckpointLoader.load_checkpoint(source)
        for source in ('s3://bucket/a.pth', 'petrel://bucket/a.pth', 'a:s3://bucket/a.pth', 'pavi://a.pth'):
            with pytest.raises(CheckpointError, match='this storage is not read here'):
                CheckpointLoader.load_checkpoint(source)
        with pytest.raises(CheckpointError, match='is not known to timm'):
            CheckpointLoader.load_checkpoint('timm://no_such_model')
    assert not (tmp_path / 'mark').exists()
    with safe_checkpoints(trust=True):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'bad.pth'))
    assert (tmp_path / 'mark').exists()


def test_names_of_the_model_zoo_come_down_to_our_reader(tmp_path, monkeypatch):
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


def test_outside_it_mmengine_does_what_it_always_did(tmp_path):
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    assert type(CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')) is dict
    with pytest.raises(FileNotFoundError):
        CheckpointLoader.load_checkpoint('timm://x')


def test_a_trusting_and_a_careful_thread_do_not_meet(tmp_path):
    """They overlap in every way; nothing of the hostile checkpoint runs, and MMEngine's tables stay as they were."""
    def tables():
        return (dict(CheckpointLoader._schemes), mmengine_checkpoint.load_from_http,
                registry_module.get_object_from_string, dict(MODELS.module_dict))

    before, barrier, wrong = tables(), threading.Barrier(2), []
    torch.save(dict(a=Malicious(os.getcwd)), tmp_path / 'trusted.pth')
    torch.save(dict(a=Malicious(os.mkdir, str(tmp_path / 'mark'))), tmp_path / 'hostile.pth')

    def trusting():
        with safe_checkpoints(trust=True), guarded_build({}):
            found = CheckpointLoader.load_checkpoint(str(tmp_path / 'trusted.pth'), logger=None)['a']
            return found == os.getcwd() and MODELS.get('os.getcwd') is os.getcwd

    def careful():
        with safe_checkpoints(), guarded_build({}):
            try:
                return CheckpointLoader.load_checkpoint(str(tmp_path / 'hostile.pth'), logger=None) is None
            except UnsafeCheckpointError:
                return MODELS.get('os.getcwd') is None

    def repeat(read):
        for turn in range(200):
            barrier.wait(60)
            if not read():
                wrong.append((read.__name__, turn))

    threads = [threading.Thread(target=repeat, args=(read, )) for read in (trusting, careful)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not (tmp_path / 'mark').exists()
    assert tables() == before
