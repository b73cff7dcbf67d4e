"""Reads the config inside a checkpoint as data. MMEngine would run it: a config is a Python program."""
import ast
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterator, List, Optional, Sequence, Set, Tuple, Union

import mmengine.registry.registry as registry_module
from mmengine import registry as mmengine_registry
from mmengine.config import Config
from mmengine.fileio.handlers import file_handlers
from mmengine.registry import Registry

from .safe_reading import UnsafeCheckpointError, is_trusting

PACKAGES = ('mmengine', 'mmcv', 'mmseg', 'mmseg_inceptionnext')

_own_imports: ContextVar[Tuple[str, ...]] = ContextVar('own_imports', default=())


@contextmanager
def allowing_imports(names: Union[str, Sequence[str]]) -> Iterator[None]:
    """Within it, embedded configs may import ``names`` too: what the user's own config has imported already."""
    token = _own_imports.set((names, ) if isinstance(names, str) else tuple(names))
    try:
        yield
    finally:
        _own_imports.reset(token)


def parse_embedded_config(text: str, source: str) -> Config:
    """Turns the text of a config into a Config without running any of it. Build from it in :func:`guarded_build`.

    Only ``name = value`` is read, where a value is a literal, a list, a tuple, or a ``dict(...)`` of such. Each
    ``type`` must be registered by MMEngine, MMCV, MMSegmentation, this package, or one that the user's own config has
    imported; ``custom_imports`` may name these packages only. What registered classes would import, unpickle or
    download for themselves is refused too, or taken out where the checkpoint's weights make it needless. In a
    ``trusting(True)`` the text is run as MMEngine does.

    Args:
        text: the config, as in ``checkpoint['meta']['cfg']``.
        source: name of the file for messages.

    Raises:
        UnsafeCheckpointError: if the text holds anything else.
    """
    if is_trusting():
        return Config.fromstring(text, file_format='.py')
    try:
        cfg = {target.id: _value(node.value) for node in ast.parse(text).body for target in _targets(node)}
        _check(cfg)
    except (_NotData, SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise UnsafeCheckpointError(
            f'the config inside {source} is not plain data of the packages here: '
            f'{str(error) or type(error).__name__}; nothing of it was run. If '
            'you trust whoever made the file, add --trust-checkpoint (in Python: trust_checkpoint=True)') from error
    return Config(cfg)


@contextmanager
def guarded_build() -> Iterator[None]:
    """Within it, MMEngine builds registered classes only and unpickles nothing, whatever a config asks for.

    A registry would import what it does not know, such as ``os.system``, and ``mmengine.load`` would unpickle what a
    setting such as ``class_weight='file.pkl'`` names. In a ``trusting(True)`` they do.
    """
    if is_trusting():
        yield
        return
    find, handlers = registry_module.get_object_from_string, dict(file_handlers)
    registry_module.get_object_from_string = _find_registered
    for name in ('pickle', 'pkl'):
        file_handlers.pop(name, None)
    try:
        yield
    finally:
        registry_module.get_object_from_string = find
        file_handlers.update(handlers)


def _find_registered(name: str) -> Optional[type]:
    module, _, attribute = name.rpartition('.')
    found = vars(sys.modules.get(module, object)).get(attribute)
    return found if any(found is item for item in _registered()[0]) else None


def check_embedded_configs(meta: dict, source: str) -> None:
    """Raises :class:`UnsafeCheckpointError` if a config in a checkpoint's ``meta`` is more than data."""
    for key in ('cfg', 'config'):  # MMEngine writes the first, and runs the second, of older releases, when it resumes
        if isinstance(meta.get(key), str):
            parse_embedded_config(meta[key], source)


class _NotData(Exception):
    """Its text says what was found."""


def _targets(node: ast.stmt) -> list:
    if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
        return node.targets
    raise _NotData(f'line {node.lineno} is no assignment to a name: {ast.unparse(node)[:80]}')


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [_value(item) for item in node.elts]
        return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](values)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):  # how Python prints these numbers
        return float(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        parts = [_value(arg) for arg in node.args]
        if all(isinstance(part, dict) for part in parts) and all(keyword.arg for keyword in node.keywords):
            own = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
            return {key: value for part in [*parts, own] for key, value in part.items()}
    raise _NotData(f'line {node.lineno} holds {ast.unparse(node)[:80]}')


def _check(cfg: dict) -> None:
    registered, names, scopes = _registered()
    imports = [*PACKAGES, *(name.split('.')[0] for name in _own_imports.get())]
    for node in _dicts(cfg):
        if '_base_' in node:
            raise _NotData(f'_base_={node["_base_"]!r} names another file to run')
        kind = node.get('type')
        if kind is not None and not (isinstance(kind, str) and _is_registered(kind, registered, names, scopes)):
            raise _NotData(f'type={kind!r} is not registered by {", ".join(PACKAGES)}')
        _check_settings(node)
        for key in ('_scope_', 'default_scope'):
            if (node.get(key) or 'mmseg') not in scopes:
                raise _NotData(f'{key}={node[key]!r} is none of {", ".join(PACKAGES)}')
        named = node.get('custom_imports') or []
        named = named.get('imports') or [] if isinstance(named, dict) else named
        for name in [named] if isinstance(named, str) else named:
            if str(name).split('.')[0] not in imports:
                raise _NotData(f'custom_imports of {name!r}, which is none of {", ".join(imports)}')


def _check_settings(node: dict) -> None:
    """Refuses settings by which registered classes import, unpickle or download."""
    for key, value in node.items():
        if str(key).endswith('_type') and isinstance(value, str) and '.' in value:
            raise _NotData(f'{key}={value!r} would be imported')
        if key == 'class_weight' and isinstance(value, str):
            raise _NotData(f'class_weight={value!r} names a file to load')
    if str(node.get('type')).endswith('TIMMBackbone'):
        if ':' in str(node.get('model_name')) or '/' in str(node.get('model_name')):
            raise _NotData(f'model_name={node["model_name"]!r} names a place to download from')
        node['pretrained'] = False  # the checkpoint has the weights
        for key in [key for key in node if key == 'checkpoint_path' or str(key).startswith('pretrained_cfg')]:
            del node[key]


def _dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple, set)):
        for item in node:
            yield from _dicts(item)


def _is_registered(kind: str, registered: List[Any], names: Set[str], scopes: Set[str]) -> bool:
    scope, _, name = kind.rpartition('.')
    if scope in ('', *scopes) and name in names:
        return True
    # Configs in MMEngine's newer style name a class by its module. Looked up only, never imported.
    found = vars(sys.modules.get(scope, object)).get(name)
    return any(found is item for item in registered)


def _registered() -> Tuple[List[Any], Set[str], Set[str]]:
    """What the registries of the packages that are imported hold, its names, and the scopes they have."""
    roots = [value for value in vars(mmengine_registry).values() if isinstance(value, Registry)]
    registered, names, scopes = [], set(), set(PACKAGES)
    while roots:
        registry = roots.pop()
        registry.import_from_location()
        roots += registry.children.values()
        scopes.add(registry.scope)
        registered += registry.module_dict.values()
        names.update(registry.module_dict)
    return registered, names, scopes
