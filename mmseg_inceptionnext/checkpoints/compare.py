"""What a checkpoint holds, and whether it fits a model: all of it or nothing."""
import re
from typing import Any, Dict, List, NamedTuple, Sequence

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmseg_inceptionnext.errors import CheckpointError

MAX_NAMES = 10  # in a message
WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')  # averaged weights first, as timm takes them


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


def compare(own: Dict[str, Tensor], given: Dict[str, Tensor], may_be_new: Sequence[str] = ()) -> Comparison:
    """Compares two state dicts by name, shape, and whether they hold floating-point numbers."""
    absent = [key for key in own if key not in given]
    kinds = {key: (given[key].shape == value.shape and given[key].is_floating_point() == value.is_floating_point())
             for key, value in own.items() if key in given}
    return Comparison(
        loaded=[key for key, fits in kinds.items() if fits],
        new=[key for key in absent if key in may_be_new],
        missing=[key for key in absent if key not in may_be_new],
        unexpected=[key for key in given if key not in own],
        misshaped=[key for key, fits in kinds.items() if not fits])


def describe(result: Comparison, own: Dict[str, Tensor], given: Dict[str, Tensor]) -> str:
    """What does not match, a line for each kind: the count and the first names."""
    shapes = [f'{key} {_shape(given[key])}, the model has {_shape(own[key])}' for key in result.misshaped]
    kinds = (('missing', result.missing), ('unexpected', result.unexpected), ('of another shape', shapes))
    return '\n'.join(f'  {len(keys)} {what}: {first_names(keys)}' for what, keys in kinds if keys)


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape)) + ('' if x.is_floating_point() else f' of {x.dtype}')


def first_names(keys: Sequence[str]) -> str:
    return ', '.join(keys[:MAX_NAMES]) + (', ...' if len(keys) > MAX_NAMES else '')


def tensors_in(state: Any, source: str) -> Dict[str, Tensor]:
    """The tensors of a state dict; raises CheckpointError if there are none."""
    names = {key: value for key, value in state.items() if isinstance(key, str)} if isinstance(state, dict) else {}
    tensors = {key: value for key, value in names.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f'{source} holds no weights: looked for tensors, also under {", ".join(WRAPPERS)}, and '
                              f'found {first_names(list(names)) or f"a {type(state).__name__} without names"}')
    return tensors


def segmentor_weights(checkpoint: dict, source: str) -> Dict[str, Tensor]:
    """:func:`tensors_in` a segmentor's checkpoint, as MMEngine loads it: ``state_dict``, without ``module.``."""
    state = tensors_in(checkpoint.get('state_dict', checkpoint), source)
    return {re.sub(r'^module\.', '', key): value for key, value in state.items()}


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers for several processes and for TTA."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_segmentor(model: nn.Module, checkpoint: dict, source: str) -> None:
    """Compares a checkpoint with a whole segmentor, wrapped or not.

    Raises:
        CheckpointError: unless every tensor is there with its shape, no other, and no number is NaN or infinite.
    """
    own, state = unwrap(model).state_dict(), segmentor_weights(checkpoint, source)
    result = compare(own, state)
    if not result.fits:
        raise CheckpointError(f'the weights in {source} do not fit the model of the config: {len(result.loaded)} of '
                              f'its {len(own)} tensors match.\n{describe(result, own, state)}\n'
                              'Give the config that the checkpoint was trained with')
    check_finite(own, state, source)


def check_finite(own: Dict[str, Tensor], state: Dict[str, Tensor], source: str) -> None:
    """Raises CheckpointError if numbers of a checkpoint are NaN or infinite where those of a fresh model are not."""
    bad = [key for key in own if key in state and not state[key].isfinite().all() and own[key].isfinite().all()]
    if bad:
        raise CheckpointError(f'{source} cannot be used: {len(bad)} of its tensors hold NaN or infinite numbers: '
                              f'{first_names(bad)}. Training had diverged, or the file was changed: take another one')
