"""Takes what inference needs out of the config inside a checkpoint, as data: MMEngine would run it as a program."""
import ast
import json
import math
import os.path as osp
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, List, Optional

import timm
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, Registry
from mmseg.registry import DATASETS
from torch import Tensor

from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

from .safe_reading import NotData, is_trusting, require

PACKAGES = ('mmengine', 'mmcv', 'mmseg', 'mmseg_inceptionnext')
PUBLISHED = 'inference_config'  # where a published checkpoint keeps it in its meta, as JSON
# What may stand in a pipeline: these transforms, with these arguments. Those for labels are left out.
TRANSFORMS = dict(
    LoadImageFromFile=('to_float32', 'color_type', 'imdecode_backend'),
    LoadRaster=('bands', 'scale_range'),
    Resize=('scale', 'scale_factor', 'keep_ratio', 'interpolation'),
    ResizeShortestEdge=('scale', 'max_size'),
    ResizeToMultiple=('size_divisor', 'interpolation'),
    Pad=('size', 'size_divisor', 'pad_to_square', 'pad_val', 'padding_mode'),
    RandomFlip=('prob', 'direction'),
    TestTimeAug=('transforms', ),
    PackSegInputs=('meta_keys', ))
FOR_LABELS = ('LoadAnnotations', 'CheckLabels')
# Settings of the places that images and weights are fetched from: the file at hand is read, and has all weights.
LEFT_OUT = ('backend_args', 'file_client_args', 'init_cfg', 'pretrained', 'checkpoint_path', 'pretrained_cfg',
            'pretrained_cfg_overlay')
MAX_TEXT = 2**20  # characters of a config
MAX_NUMBER = 2**20
MAX_PIXELS, MAX_FACTOR = 2**24, 4  # that an image is brought to, and by which each side is enlarged
# What these settings of a transform come to at most, both sides multiplied.
SIZES = dict(dict.fromkeys(('scale', 'size', 'max_size', 'size_divisor'), MAX_PIXELS), scale_factor=MAX_FACTOR**2)
MAX_VIEWS = 64  # of an image, by TestTimeAug
MIN_STRIDE = 16  # pixels, of sliding windows
MODULE_COST = 256  # parameters that a module counts for, so that their number is limited, too
UNREADABLE = (NotData, SyntaxError, TypeError, ValueError, LookupError, AttributeError, RecursionError, MemoryError)

_budget: ContextVar[Optional[list]] = ContextVar('budget', default=None)


def embedded_config(meta: dict, source: str) -> Config:
    """What inference needs of the config in a checkpoint's ``meta``, without running any of it.

    That is ``model``, ``test_dataloader.dataset`` with the pipeline and what it says of the classes, ``tta_model`` and
    ``tta_pipeline``. Build from it in :func:`guarded_build`. In a ``safe_checkpoints(trust=True)`` the whole config is
    run as MMEngine does.

    Raises:
        CheckpointError: if there is none.
        UnsafeCheckpointError: if it holds anything but plain data.
    """
    if not holds_config(meta):
        raise CheckpointError(f'{source} holds no config; give the one it was trained with by --config')
    text = meta.get(PUBLISHED, meta.get('cfg'))
    if is_trusting() and PUBLISHED not in meta:
        return Config.fromstring(text, file_format='.py')
    return inference_config(text, source, from_json if PUBLISHED in meta else _parse)


def inference_config(cfg: Any, source: str, read: Callable[[Any], dict] = dict) -> Config:
    """Takes what inference needs out of a config, or out of its text by ``read``; see :func:`embedded_config`."""
    try:
        require(len(cfg) <= MAX_TEXT, f'its text has more than {MAX_TEXT} characters')
        return Config(_select(read(cfg)))
    except UNREADABLE as error:
        found = error if isinstance(error, NotData) else repr(error)[:160]
        raise UnsafeCheckpointError(
            f'the config inside {source} is not plain data of the packages here: {found}; nothing of it was run. Give '
            'the config that it was trained with by --config, or, if you trust whoever made the file, add '
            '--trust-checkpoint (in Python: trust_checkpoint=True)') from error


def holds_config(meta: dict) -> bool:
    """Whether there is a config for :func:`embedded_config` to read."""
    return isinstance(meta.get(PUBLISHED, meta.get('cfg')), str)


def to_json(value: Any) -> str:
    """A config, or a part of one, as JSON; a tuple, which some classes insist on, as ``{"tuple": [...]}``."""
    def tagged(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: tagged(item) for key, item in part.items()}
        items = list(map(tagged, part)) if isinstance(part, (list, tuple)) else part
        return dict(tuple=items) if isinstance(part, tuple) else items
    return json.dumps(tagged(value))


def from_json(text: str) -> Any:
    """Reads what :func:`to_json` wrote."""
    return json.loads(text, object_hook=lambda part: tuple(part['tuple']) if part.keys() == {'tuple'} else part)


def dataset_type(meta: dict) -> str:
    """The class of the data set that the config in a checkpoint's ``meta`` tests on; empty where it is not known."""
    text = meta.get('cfg')
    try:
        require(isinstance(text, str) and len(text) <= MAX_TEXT, 'no config')
        return _bare(_test_dataset(_parse(text))['type'])
    except UNREADABLE:
        return ''


@contextmanager
def guarded_build(weights: Dict[str, Tensor]) -> Iterator[None]:
    """Within it, MMEngine's registries import nothing, and a model cannot be much larger than these weights.

    It has no effect in a ``safe_checkpoints(trust=True)``.
    """
    token = _budget.set(None if is_trusting() else [4 * sum(map(Tensor.numel, weights.values())) + 2**24])
    try:
        yield
    finally:
        _budget.reset(token)


def is_guarded_build() -> bool:
    """Whether the caller stands in :func:`guarded_build`, and the checkpoint is not trusted."""
    return _budget.get() is not None


def count_part(module, name: str, part: Any) -> None:
    """Sees each parameter, buffer and module that any model gets."""
    budget = _budget.get()
    if budget is not None and part is not None:
        budget[0] -= part.numel() if isinstance(part, Tensor) else MODULE_COST
        if budget[0] < 0:
            raise ValueError('it has far more parameters than the checkpoint')


def find_registered(name: str) -> Any:
    """A part of models by its module and name, as MMEngine's newer style of configs has it; None if none is registered.

    Nothing is imported.
    """
    module, _, attribute = name.rpartition('.')
    found = vars(sys.modules.get(module, object)).get(attribute)
    return found if any(found is item for registry in _registries() for item in registry.module_dict.values()) else None


def _parse(text: str) -> dict:
    """A config's ``name = value``, where a value is a literal with ``dict(name=value)``, ``inf`` and ``nan`` in it."""
    values = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or not all(isinstance(target, ast.Name) for target in node.targets):
            raise NotData(f'line {node.lineno} is no assignment to a name: {ast.unparse(node)[:80]}')
        try:
            value = ast.literal_eval(_Literal().visit(node.value))
        except ValueError as error:
            raise NotData(f'line {node.lineno} holds {ast.unparse(node.value)[:80]}') from error
        values.update({target.id: value for target in node.targets})
    return values


class _Literal(ast.NodeTransformer):
    """Makes literals of how Python prints some numbers and MMEngine dicts."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ('inf', 'nan') else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        given = node.args[0] if len(node.args) == 1 else ast.Dict([], [])  # where keys are no names: dict({255: 1})
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or len(node.args) > 1 or not isinstance(
                given, ast.Dict):
            return node
        return ast.Dict([*given.keys, *(keyword.arg and ast.Constant(keyword.arg) for keyword in node.keywords)],
                        [*given.values, *(keyword.value for keyword in node.keywords)])


def _select(cfg: dict) -> dict:
    """What inference needs, checked; the rest, such as hooks, is never looked at."""
    selected = dict(default_scope='mmseg', model=_plain(_expect(cfg.get('model'), dict, 'model'), 'model'))
    stride = (selected['model'].get('test_cfg') or {}).get('stride') or [MIN_STRIDE]
    require(min(stride) >= MIN_STRIDE,
            f'model.test_cfg.stride={stride} makes too many windows; allowed is {MIN_STRIDE} and more')
    dataset = _test_dataset(cfg)
    if dataset:
        selected['test_dataloader'] = dict(dataset=dict(
            pipeline=_pipeline(dataset.get('pipeline'), 'test_dataloader.dataset.pipeline'),
            metainfo=_metainfo(dataset)))
    if cfg.get('tta_model') and cfg.get('tta_pipeline'):
        selected.update(tta_model=_plain(cfg['tta_model'], 'tta_model'),
                        tta_pipeline=_pipeline(cfg['tta_pipeline'], 'tta_pipeline'))
    return selected


def _test_dataset(cfg: dict) -> Optional[dict]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    while dataset and 'pipeline' not in dataset and (dataset.get('dataset') or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]  # of those that it joins or repeats
    return dataset


def _expect(value: Any, kind: type, name: str) -> Any:
    require(isinstance(value, kind), f'{name} is {type(value).__name__}, not a {kind.__name__}')
    return value


def _metainfo(dataset: dict) -> dict:
    """Classes and colours as the dataset's class has them, and those that stand in the config; no file is read."""
    DATASETS.import_from_location()
    of_class = getattr(DATASETS.module_dict.get(_bare(dataset.get('type', ''))), 'METAINFO', {})
    own = {key: dataset[key] for key in ('classes', 'palette') if dataset.get(key)}  # of FolderDataset
    given = {**own, **(dataset.get('metainfo') or {})}
    return {key: value for key, value in {**of_class, **given}.items()
            if key in ('classes', 'palette') and isinstance(value, (list, tuple))}


def _bare(kind: Any) -> str:
    """The name of a class without its package or module."""
    return _expect(kind, str, 'type').rpartition('.')[2]


def _pipeline(steps: Any, name: str) -> List[dict]:
    selected = _steps(steps, name)
    kinds = [step['type'] for step in selected]
    require(kinds[:1] in (['LoadImageFromFile'], ['LoadRaster']) and len(set(kinds)) == len(kinds),
            f'{name} is {", ".join(kinds)}; it begins with LoadImageFromFile, and has no step twice')
    return selected


def _steps(steps: Any, name: str) -> List[dict]:
    """Those of a pipeline, or of a choice of TestTimeAug, without what is for labels."""
    selected = []
    for step in _expect(steps, list, name):
        kind = _bare(_expect(step, dict, f'a step of {name}').get('type'))
        arguments = {key: step[key] for key in step if key not in ('type', *LEFT_OUT)}
        if kind in FOR_LABELS:
            continue
        if kind not in TRANSFORMS or set(arguments) - set(TRANSFORMS[kind]):
            allowed = ', '.join(f'{kind}({", ".join(keys)})' for kind, keys in TRANSFORMS.items())
            raise NotData(f'{name} has the step {kind}({", ".join(map(str, arguments))}); allowed are {allowed}')
        if kind == 'TestTimeAug':
            arguments = dict(transforms=_views(arguments.get('transforms'), f'{name}.transforms'))
        else:
            arguments = {key: _size(key, tuple(value) if isinstance(value, list) else value)
                         for key, value in arguments.items()}
        selected.append(dict(type=kind, **arguments))
    return selected


def _views(choices: Any, name: str) -> List[List[dict]]:
    """The steps of TestTimeAug: of each list one is taken, in every combination."""
    selected = [choice for choice in (_steps(choice, name) for choice in _expect(choices, list, name)) if choice]
    views = math.prod(map(len, selected))
    are_nested = any(step['type'] == 'TestTimeAug' for choice in selected for step in choice)
    require(views <= MAX_VIEWS and not are_nested, f'{name} has more than {MAX_VIEWS} views, or views of views')
    return selected


def _size(key: str, value: Any) -> Any:
    """A setting of a transform, within the limits that keep images small."""
    value = _plain(value, key)
    require(key not in SIZES or value is None or 0 < area(value) <= SIZES[key],
            f'{key}={value!s:.80} makes images too large, or is no size')
    return value


def area(sides: Any) -> float:
    """The product of two numbers above 0, or the square of one; 0 if they are anything else."""
    sides = sides if isinstance(sides, (list, tuple)) else [sides, sides]
    are_sizes = len(sides) == 2 and all(type(side) in (int, float) and side > 0 for side in sides)
    return sides[0] * sides[1] if are_sizes else 0


def _plain(value: Any, name: str) -> Any:
    """A part of a model: numbers, words, and what is made from them."""
    if isinstance(value, dict):
        for key in value:
            _expect(key, str, f'a name in {name}')
        part = {key: value[key] for key in value if key not in LEFT_OUT}
        kind = part.pop('type', None)
        require(kind is None or isinstance(kind, str) and _is_registered(kind),
                f'type={kind!r:.80} in {name} is not registered by {", ".join(PACKAGES)}')
        require(part.get('_scope_', 'mmseg') in PACKAGES,  # whose registry MMEngine would import
                f'_scope_ in {name} is none of {", ".join(PACKAGES)}')
        part = {key: _plain(item, f'{name}.{key}') for key, item in part.items()}
        return part if kind is None else dict(part, type=kind)
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(item, name) for item in value])
    if isinstance(value, str):
        is_word = re.fullmatch(r'[\w -]*', value) or name.endswith('.model_name') and timm.is_model(value.split('.')[0])
        require(is_word and not osp.isfile(value), f'{name}={value[:80]!r} is no word, or names a file or a place')
        return value
    require(isinstance(value, (bool, float, type(None))) or type(value) is int and abs(value) <= MAX_NUMBER,
            f'{name} is {type(value).__name__}; allowed are words, and numbers up to {MAX_NUMBER}')
    return value


def _is_registered(kind: str) -> bool:
    scope, _, name = kind.rpartition('.')
    registries = _registries()
    is_named = any(name in registry.module_dict for registry in registries)
    return is_named and scope in ('', *PACKAGES, *(registry.scope for registry in registries)) or (
        find_registered(kind) is not None)


def _registries() -> List[Registry]:
    """MMEngine's registries of model parts, of all packages that are imported."""
    registries = [MODELS, TASK_UTILS]
    for registry in registries:  # which grow meanwhile
        registry.import_from_location()
        registries += registry.children.values()
    return registries
