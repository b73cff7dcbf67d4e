"""What a checkpoint holds, and whether it fits a model: whole or not at all."""
import re
from typing import Any, Dict, List, NamedTuple, Sequence

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmseg_inceptionnext.errors import CheckpointError

MAX_KEYS_SHOWN = 10
AVERAGED = ('state_dict_ema', 'model_ema')  # where training keeps the moving average of the weights
WRAPPERS = (*AVERAGED, 'state_dict', 'model')  # averaged weights first, as timm takes them


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
    return '\n'.join(f'  {len(keys)} {what}: {listed(keys)}' for what, keys in kinds if keys)


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape)) + ('' if x.is_floating_point() else f' of {x.dtype}')


def listed(keys: Sequence[str]) -> str:
    return ', '.join(keys[:MAX_KEYS_SHOWN]) + (', ...' if len(keys) > MAX_KEYS_SHOWN else '')


def segmentor_weights(checkpoint: dict, source: str) -> Dict[str, Tensor]:
    """The tensors of a whole model as MMEngine loads them: those under ``state_dict``, without ``module.``.

    Raises:
        CheckpointError: if there are none.
    """
    state = checkpoint.get('state_dict', checkpoint)
    return {re.sub(r'^module\.', '', key): value for key, value in tensors_in(state, source).items()}


def tensors_in(state: Any, source: str) -> Dict[str, Tensor]:
    entries = state.items() if isinstance(state, dict) else ()
    tensors = {key: value for key, value in entries if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        is_dict = isinstance(state, dict)
        found = listed([key for key in state if isinstance(key, str)]) if is_dict else type(state).__name__
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
                              f'{listed(broken)}. Training had diverged, or the file was changed: take another one')
