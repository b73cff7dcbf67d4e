"""The one list of this package's metrics, and what the other rooms ask of it."""
import difflib
from typing import List, Sequence

from mmseg.registry import METRICS

from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.parts import class_of, is_a

from .accuracy import Accuracy
from .metrics import ExactIoUMetric

KNOWN = (ExactIoUMetric, Accuracy)  # a new metric is added here, and says by the same attributes what it measures


def greater_is_better() -> List[str]:
    """What is measured of each class and is better the more it is, for ``CheckpointHook(greater_keys=...)``."""
    return list(dict.fromkeys(name for kind in KNOWN for names in kind.MEASURED.values() for name in names))


def headlines() -> List[str]:
    """The means that summaries of runs show, the main one first."""
    return list(dict.fromkeys(name for kind in KNOWN for name in kind.HEADLINES))


def is_known(evaluator: dict) -> bool:
    """Whether an evaluator is a metric of this package."""
    return is_a(evaluator, METRICS, *KNOWN)


def find_measured(key: str, evaluator: dict, classes: Sequence[str]) -> str:
    """The key under which an evaluator gives what ``save_best`` names, with the class's own name in it.

    Raises:
        ConfigError: if a metric of this package does not measure it, or there is no such class.
    """
    if not is_known(evaluator) or key == 'auto':
        return key
    kind = class_of(evaluator, METRICS)
    prefix = f'{evaluator["prefix"]}/' if evaluator.get('prefix') else ''
    means, of_class = kind.measured(evaluator)
    means = [f'{prefix}{name}' for name in means]
    metric, _, wanted = key[len(prefix):].partition('/')
    if key in means:
        return key
    if not of_class:
        raise ConfigError(f'save_best={key!r} is not measured: val_evaluator gives {", ".join(means)}')
    if not (wanted and key.startswith(prefix) and metric in of_class):
        raise ConfigError(f'save_best={key!r} is not measured: val_evaluator gives {", ".join(means)}, and each but '
                          f'aAcc of a class, such as {prefix}{of_class[0]}/{classes[0]}; more by '
                          f'val_evaluator.iou_metrics: {", ".join(kind.MEASURED)}')
    names = {''.join(name.split()): name for name in classes}  # MMEngine's own --cfg-options takes spaces out
    squeezed = ''.join(wanted.split())
    if squeezed not in names:
        near = [names[name] for name in difflib.get_close_matches(squeezed, names)] or list(classes)
        raise ConfigError(f'save_best={key!r}: the validation set has no class {wanted!r}; near to it are '
                          f'{", ".join(repr(name) for name in near[:5])}. On the command line a name that holds a '
                          'comma stands in quotes of its own: "default_hooks.checkpoint.save_best=\'IoU/lamp, lit\'"')
    return f'{prefix}{metric}/{names[squeezed]}'
