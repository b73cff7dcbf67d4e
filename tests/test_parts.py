import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.registry import HOOKS, OPTIM_WRAPPERS, TRANSFORMS
from torch.optim import AdamW

import mmseg_inceptionnext
from mmseg_inceptionnext.datasets import ADEChallengeDataset
from mmseg_inceptionnext.datasets.check.settings import compare_ignore_index
from mmseg_inceptionnext.engine import fuse_optimizer, match_batch
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.evaluation import ExactIoUMetric, find_measured, is_known
from mmseg_inceptionnext.models.backbones.metanext import build_norm
from mmseg_inceptionnext.parts import class_of, find_datasets, first_dataset, is_a, type_name

PACKAGE = Path(mmseg_inceptionnext.__file__).parent


class ColourLabels(LoadAnnotations):
    pass


@pytest.mark.parametrize('kind', ['LoadAnnotations', 'mmseg.LoadAnnotations', LoadAnnotations])
def test_a_type_is_a_name_a_name_with_a_scope_or_the_class(kind):
    step = dict(type=kind)
    assert type_name(step) == 'LoadAnnotations'
    assert class_of(step, TRANSFORMS) is LoadAnnotations and is_a(step, TRANSFORMS, LoadAnnotations)


def test_a_subclass_counts_and_what_is_unknown_does_not():
    assert is_a(dict(type=ColourLabels), TRANSFORMS, LoadAnnotations)
    assert not is_a(dict(type='NoSuchStep'), TRANSFORMS, LoadAnnotations) and not is_a({}, HOOKS, EMAHook)
    assert is_a(dict(type='mmengine.hooks.EMAHook'), HOOKS, EMAHook)
    assert class_of({}, OPTIM_WRAPPERS, OptimWrapper) is OptimWrapper and type_name({}) == ''


def test_data_sets_are_found_within_those_that_join_or_repeat_them():
    part, other = dict(type=ADEChallengeDataset, data_root='a'), dict(type='FolderDataset', data_root='b')
    joined = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=part), other])
    cfg = dict(val_dataloader=dict(dataset=joined))
    assert dict(find_datasets(cfg, 'val')) == {
        'val_dataloader.dataset.datasets.0.dataset': part, 'val_dataloader.dataset.datasets.1': other}
    assert first_dataset(cfg, 'val') is part and first_dataset(cfg, 'test') is None
    with pytest.raises(ConfigError, match='no test_dataloader'):
        list(find_datasets(cfg, 'test'))


def is_type_of_a_part(node):
    """``part['type']``, ``part.get('type')`` or ``part.type``, but for the type of a device."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == 'type'
    if isinstance(node, ast.Call):
        first = node.args[0] if node.args else None
        return (isinstance(node.func, ast.Attribute) and node.func.attr == 'get' and isinstance(first, ast.Constant)
                and first.value == 'type')
    return isinstance(node, ast.Attribute) and node.attr == 'type' and 'device' not in ast.unparse(node.value)


def test_nothing_else_compares_the_type_of_a_part():
    """It may be a name, one with a scope, or a class: only ``parts.py`` knows."""
    as_plain_data = {'checkpoints/embedded_config.py', 'inference/onnx_backend.py', 'parts.py'}
    found = []
    for path in sorted(PACKAGE.rglob('*.py')):
        if str(path.relative_to(PACKAGE)) not in as_plain_data and path.name != 'page_guard.py':
            for node in ast.walk(ast.parse(path.read_text())):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                found += [f'{path}:{node.lineno}' for side in sides if is_type_of_a_part(side)]
    assert not found


class OwnMetric(ExactIoUMetric):
    pass


class OwnEMAHook(EMAHook):
    pass


FORMS = ['Name', 'scope.Name', 'class']


def form_of(kind, form, scope='mmengine'):
    return {'Name': kind.__name__, 'scope.Name': f'{scope}.{kind.__name__}', 'class': kind}[form]


@pytest.mark.parametrize('form', FORMS)
def test_a_recipe_of_iterations_and_averaged_weights_are_known_in_each_form(form):
    cfg = Config(dict(
        train_cfg=dict(type=form_of(IterBasedTrainLoop, form), max_iters=10), optim_wrapper=dict(),
        train_dataloader=dict(batch_size=2), auto_scale_lr=dict(base_batch_size=8),
        custom_hooks=[dict(type=form_of(EMAHook, form)), dict(type=OwnEMAHook, interval=3)]))
    assert match_batch(cfg) == 4
    assert [hook.interval for hook in cfg.custom_hooks] == [4, 12] and cfg.train_cfg.max_iters == 40
    cfg.train_cfg.type = form_of(EpochBasedTrainLoop, form)
    with pytest.raises(ConfigError, match='train_cfg.type is EpochBasedTrainLoop'):
        match_batch(cfg)


@pytest.mark.parametrize('kind', ['ExactIoUMetric', 'mmseg.ExactIoUMetric', ExactIoUMetric, OwnMetric])
def test_a_metric_is_known_in_each_form(kind):
    assert is_known(dict(type=kind))
    with pytest.raises(ConfigError, match="save_best='IoU/raod'.*near to it are 'road'"):
        find_measured('IoU/raod', dict(type=kind), ('road', 'sky'))


@pytest.mark.parametrize('kind', ['IoUMetric', 'mmseg.IoUMetric', IoUMetric, OwnMetric])
def test_what_a_metric_ignores_is_compared_in_each_form(kind):
    cfg = dict(val_evaluator=[dict(type=kind, ignore_index=0)])
    (problem, ) = compare_ignore_index(cfg, 'val', 'val_dataloader.dataset', 255)
    assert problem.path == 'val_evaluator.0.ignore_index'


@pytest.mark.parametrize('kind', ['AdamW', 'torch.optim.AdamW', AdamW])
def test_an_optimizer_is_fused_in_each_form(kind, monkeypatch):
    monkeypatch.setattr('mmseg_inceptionnext.engine.optim.get_device', lambda: 'cuda')
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type=kind))))
    fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.fused


@pytest.mark.parametrize('kind', ['LN', 'LayerNorm', torch.nn.LayerNorm])
def test_a_layer_norm_of_maps_is_over_channels_in_each_form(kind):
    norm = build_norm(dict(type=kind, eps=1e-6), 4)
    torch.testing.assert_close(norm(torch.ones(1, 4, 5, 6)), torch.zeros(1, 4, 5, 6))
