import ast
from pathlib import Path

import pytest
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import HOOKS, OPTIM_WRAPPERS, TRANSFORMS

import mmseg_inceptionnext
from mmseg_inceptionnext.datasets import ADEChallengeDataset
from mmseg_inceptionnext.errors import ConfigError
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
