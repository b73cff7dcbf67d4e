"""What a checkpoint holds, and whether it fits a model: whole or not at all."""
import re
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from .safe_reading import CheckpointError

MAX_KEYS_SHOWN = 10
AVERAGED = ('state_dict_ema', 'model_ema')  # where training keeps the moving average of the weights
WRAPPERS = (*AVERAGED, 'state_dict', 'model')  # averaged weights first, as timm takes them
WHOLE_PREFIXES = ('module.', '_orig_mod.', 'model.', 'timm_model.')  # before every name, or before none
PART_PREFIXES = ('backbone.', 'encoder.')  # before the names of the backbone in a whole segmentor
CONVNEXT_NAMES = ('conv_dw.', '.dwconv.', 'pwconv1.', 'downsample_layers.', 'depthwise_conv.')


class Trunk(NamedTuple):
    """The backbone's part of a checkpoint, under the published names.

    Attributes:
        tensors: name to tensor, without the classifier.
        form: how it was wrapped, such as ``state_dict / backbone.``.
        ignored: names of the classifier's tensors that were left out.
    """
    tensors: Dict[str, Tensor]
    form: str
    ignored: List[str]


def extract_trunk(checkpoint: dict, source: str) -> Trunk:
    """Finds the backbone in any of the forms in which it goes round.

    A bare state dict, or one under ``state_dict``, ``model``, ``state_dict_ema`` or ``model_ema``; with prefixes such
    as ``module.`` or ``backbone.``; with timm's flat names (``stages_0``); a whole segmentor.

    Raises:
        CheckpointError: if there are no tensors in it.
    """
    form = []
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), dict) and checkpoint[wrapper]:
            checkpoint = checkpoint[wrapper]
            form.append(wrapper)
    tensors, prefixes = _without_prefixes(_tensors(checkpoint, source), source)
    flat = re.compile(r'^(stem|stages)_(\d+)\.')
    if any(flat.match(key) for key in tensors):
        form.append('timm features_only')
        tensors = {flat.sub(r'\1.\2.', key): value for key, value in tensors.items()}
    ignored = [key for key in tensors if key.startswith('head.')]
    trunk = {key: value for key, value in tensors.items() if not key.startswith('head.')}
    return Trunk(trunk, ' / '.join([*form, *prefixes]) or 'bare state dict', ignored)


def _without_prefixes(tensors: Dict[str, Tensor], source: str) -> Tuple[Dict[str, Tensor], List[str]]:
    prefixes = []
    while True:
        whole = [p for p in WHOLE_PREFIXES if all(key.startswith(p) for key in tensors)]
        part = [p for p in PART_PREFIXES if any(key.startswith(p) for key in tensors)]
        if not whole and not part:
            return tensors, prefixes
        prefix = (whole or part)[0]
        prefixes.append(prefix)
        beside = [key for key in tensors if key.startswith(('stem.', 'stages.')) and not whole]
        if beside:
            raise CheckpointError(f'{source} holds more than one trunk: beside {prefix}* there are {_list(beside)}; '
                                  'which one is meant cannot be known, so nothing was loaded')
        tensors = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}


def recognise_arch(tensors: Dict[str, Tensor]) -> str:
    """Name of the published size that has these tensors, ``ConvNeXt`` if it looks like one, or an empty string."""
    from mmseg_inceptionnext.models.backbones.inceptionnext import InceptionNeXt  # which loads through this module
    if any(name in key for key in tensors for name in CONVNEXT_NAMES):
        return 'ConvNeXt'
    depths, dims = _depths(tensors), _dims(tensors)
    for name, settings in InceptionNeXt.arch_settings.items():
        if depths and depths == settings['depths'][:len(depths)] and dims == settings['dims'][:len(dims)]:
            if len(depths) > 2 or name == 'atto' or dims[0] == 128:  # tiny and small part at the third stage
                return name
    return ''


def _depths(tensors: Dict[str, Tensor]) -> Tuple[int, ...]:
    blocks: Dict[int, Set[int]] = {}
    for key in tensors:
        found = re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', key)
        if found:
            blocks.setdefault(int(found.group(1)), set()).add(int(found.group(2)))
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _dims(tensors: Dict[str, Tensor]) -> Tuple[int, ...]:
    convs = [tensors.get('stem.0.weight')] + [tensors.get(f'stages.{i}.downsample.1.weight') for i in range(1, 10)]
    return tuple(len(conv) for conv in convs if conv is not None and conv.ndim)


class Comparison(NamedTuple):
    """How the tensors of a file and of a model compare, by name; ``new`` are the output norms that the file lacks."""
    loaded: List[str]
    new: List[str]
    missing: List[str]
    unexpected: List[str]
    misshaped: List[str]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.misshaped)


def compare(own: Dict[str, Tensor], trunk: Dict[str, Tensor], may_be_new: Sequence[str] = ()) -> Comparison:
    """Compares two state dicts by name, shape, and whether they hold floating-point numbers."""
    absent = [key for key in own if key not in trunk]

    def fits(key: str) -> bool:
        ours, theirs = own[key], trunk[key]
        return theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point()

    return Comparison(
        loaded=[key for key in own if key in trunk and fits(key)],
        new=[key for key in absent if key in may_be_new],
        missing=[key for key in absent if key not in may_be_new],
        unexpected=[key for key in trunk if key not in own],
        misshaped=[key for key in own if key in trunk and not fits(key)])


def describe(result: Comparison, own: Dict[str, Tensor], trunk: Dict[str, Tensor]) -> str:
    """What does not match, a line for each kind: the count and the first names."""
    shapes = [f'{key} {_shape(trunk[key])}, the model has {_shape(own[key])}' for key in result.misshaped]
    kinds = (('missing', result.missing), ('unexpected', result.unexpected), ('of another shape', shapes))
    return '\n'.join(f'  {len(keys)} {what}: {_list(keys)}' for what, keys in kinds if keys)


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape)) + ('' if x.is_floating_point() else f' of {x.dtype}')


def likely_cause(own: Dict[str, Tensor], trunk: Dict[str, Tensor]) -> str:
    """One line on what the file seems to be, if that explains the mismatch."""
    theirs, ours = recognise_arch(trunk), recognise_arch(own)
    if theirs == 'ConvNeXt':
        return 'This looks like ConvNeXt, not InceptionNeXt.'
    if theirs and theirs != ours:
        return f"This is arch '{theirs}', the model is {repr(ours) if ours else 'another one'}."
    return ''


def _list(keys: Sequence[str]) -> str:
    return ', '.join(keys[:MAX_KEYS_SHOWN]) + (', ...' if len(keys) > MAX_KEYS_SHOWN else '')


def segmentor_weights(checkpoint: dict, source: str) -> Dict[str, Tensor]:
    """The tensors of a whole model as MMEngine loads them: those under ``state_dict``, without ``module.``.

    Raises:
        CheckpointError: if there are none.
    """
    state = checkpoint.get('state_dict', checkpoint)
    return {re.sub(r'^module\.', '', key): value for key, value in _tensors(state, source).items()}


def _tensors(state: Any, source: str) -> Dict[str, Tensor]:
    entries = state.items() if isinstance(state, dict) else ()
    tensors = {key: value for key, value in entries if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        is_dict = isinstance(state, dict)
        found = _list([key for key in state if isinstance(key, str)]) if is_dict else type(state).__name__
        raise CheckpointError(f'{source} holds no weights: looked for tensors, also under {", ".join(WRAPPERS)}, and '
                              f'found {found or "nothing"}')
    return tensors


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers for several processes and for TTA."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_segmentor(model: nn.Module, checkpoint: dict, source: str) -> None:
    """Compares a checkpoint with a whole segmentor, wrapped or not.

    Raises:
        CheckpointError: unless every tensor is there with its shape, and no other.
    """
    own, state = unwrap(model).state_dict(), segmentor_weights(checkpoint, source)
    result = compare(own, state)
    if not result.fits:
        raise CheckpointError(f'the weights in {source} do not fit the model of the config: {len(result.loaded)} of '
                              f'its {len(own)} tensors match.\n{describe(result, own, state)}\n'
                              'Give the config that the checkpoint was trained with')
    check_finite(own, state, source)


def check_finite(own: Dict[str, Tensor], state: Dict[str, Tensor], source: str) -> None:
    """Compares the numbers of a checkpoint with those of a fresh model, by name.

    Raises:
        CheckpointError: if some are NaN or infinite where the model's are not.
    """
    broken = [key for key in own if key in state and not state[key].isfinite().all() and own[key].isfinite().all()]
    if broken:
        raise CheckpointError(f'{source} cannot be used: {len(broken)} of its tensors hold NaN or infinite numbers: '
                              f'{_list(broken)}. Training had diverged, or the file was changed: take another one')
