"""The parts that a config has built, by their names: model, data, loops, optimizer, hooks."""
import inspect
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple

from mmcv.transforms import Compose, KeyMapper, RandomApply, RandomChoice, TestTimeAug
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, TestLoop, ValLoop
from mmseg.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)
from torch.utils.data import DataLoader

from mmseg_inceptionnext.parts import is_a, numbered

from .signatures import refuse_unknown

LAYERS = ('norm_cfg', 'act_cfg', 'conv_cfg')
AROUND = Compose, KeyMapper, RandomApply, RandomChoice, TestTimeAug  # steps that hold others
LOADER = ('dataset', 'sampler', 'batch_sampler', 'num_batch_per_epoch', 'disable_subprocess_warning')


class Part(NamedTuple):
    """Something that a config has built.

    Attributes:
        name: as ``--cfg-options`` takes it.
        settings: with ``type``.
        registry: where the ``type`` is looked up.
        others: settings that are taken out before it is built.
        default: what is built without a ``type``.
    """
    name: str
    settings: Any
    registry: Registry
    others: Tuple[str, ...] = ()
    default: Any = None


def hooks_of(cfg: Config) -> List[Tuple[str, Any]]:
    """The hooks of a config, each with its name."""
    default = [(f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items()]
    return [*default, *numbered('custom_hooks', cfg.get('custom_hooks'))]


def value_of(cfg: Any, name: str) -> Any:
    """What stands in a config under a name with dots; None if nothing does."""
    for key in name.split('.'):
        if isinstance(cfg, (list, tuple)) and key.isdigit():
            cfg = cfg[int(key)]
        else:
            cfg = cfg.get(key) if isinstance(cfg, (dict, Config)) else None
    return cfg


def parts_of(cfg: Config, splits: Sequence[str]) -> Iterator[Part]:
    """All that a run has built from settings of its own, for some splits that have dataloaders."""
    yield from _of_model(cfg.model)
    for split in splits:
        yield from _of_split(cfg, split)
    if 'train' in splits:
        yield from _of_optimizer(cfg)
    for name, hook in hooks_of(cfg):
        yield Part(name, hook, HOOKS, ('priority', ))
    visualizer = cfg.get('visualizer') or {}
    if isinstance(visualizer, dict) and visualizer:
        yield Part('visualizer', visualizer, VISUALIZERS)
        yield from (Part(*one, VISBACKENDS) for one in numbered(
            'visualizer.vis_backends', visualizer.get('vis_backends')))
    yield Part('log_processor', cfg.get('log_processor') or {}, LOG_PROCESSORS, (), LogProcessor)


def parts_of_views(cfg: Config) -> Iterator[Part]:
    """What ``--protocol ms`` has built beside :func:`parts_of`."""
    yield from _of_pipeline('tta_pipeline', cfg.get('tta_pipeline'))
    if isinstance(cfg.get('tta_model'), dict):
        yield Part('tta_model', cfg.tta_model, MODELS, ('module', ))


def _of_split(cfg: Config, split: str) -> Iterator[Part]:
    loops = dict(train=EpochBasedTrainLoop if (cfg.get('train_cfg') or {}).get('by_epoch') else IterBasedTrainLoop,
                 val=ValLoop, test=TestLoop)
    yield Part(f'{split}_cfg', cfg.get(f'{split}_cfg') or {}, LOOPS, ('by_epoch', ), loops[split])
    loader = cfg[f'{split}_dataloader']
    refuse_unknown(f'{split}_dataloader', loader, {*LOADER, *inspect.signature(DataLoader).parameters})
    yield from _of_dataset(f'{split}_dataloader.dataset', loader.get('dataset'))
    for sampler in ('sampler', 'batch_sampler'):
        if isinstance(loader.get(sampler), dict):
            yield Part(f'{split}_dataloader.{sampler}', loader[sampler], DATA_SAMPLERS)
    for name, metric in numbered(f'{split}_evaluator', cfg.get(f'{split}_evaluator')):
        if isinstance(metric, dict) and 'metrics' in metric:
            yield from (Part(*one, METRICS) for one in numbered(f'{name}.metrics', metric['metrics']))
        else:
            yield Part(name, metric, METRICS)


def _of_optimizer(cfg: Config) -> Iterator[Part]:
    wrapper = cfg.optim_wrapper
    if 'optimizer' in wrapper or 'constructor' not in wrapper:  # else that makes several
        others = ('constructor', 'paramwise_cfg', 'loss_scale', 'dtype')  # the last two for the wrapper of --amp
        yield Part('optim_wrapper', wrapper, OPTIM_WRAPPERS, others, OptimWrapper)
        yield Part('optim_wrapper.optimizer', wrapper.get('optimizer'), OPTIMIZERS)
    schedulers = cfg.get('param_scheduler')
    if not isinstance(schedulers, dict) or 'type' in schedulers:  # else of several optimizers
        yield from (Part(*one, PARAM_SCHEDULERS, ('convert_to_iter_based', 'epoch_length'))
                    for one in numbered('param_scheduler', schedulers))


def _of_model(model: dict) -> Iterator[Part]:
    yield Part('model', model, MODELS)
    for name in ('data_preprocessor', 'backbone', 'neck', 'decode_head', 'auxiliary_head'):
        for one, part in numbered(f'model.{name}', model.get(name)):
            yield Part(one, part, MODELS)
            keys = part if isinstance(part, dict) else ()
            inner = [key for key in keys if key.endswith((*LAYERS, 'loss_decode'))]
            yield from (Part(*found, MODELS) for key in inner for found in numbered(f'{one}.{key}', part[key]))


def _of_dataset(name: str, dataset: Any) -> Iterator[Part]:
    """A data set, those within it, and the steps of all pipelines."""
    yield Part(name, dataset, DATASETS)
    if isinstance(dataset, dict):
        for key in ('datasets', 'dataset'):
            for one, inner in numbered(f'{name}.{key}', dataset.get(key)):
                yield from _of_dataset(one, inner)
        yield from _of_pipeline(f'{name}.pipeline', dataset.get('pipeline'))


def _of_pipeline(name: str, steps: Any) -> Iterator[Part]:
    for one, step in numbered(name, steps):
        if isinstance(step, (list, tuple)):  # of TestTimeAug, RandomChoice
            yield from _of_pipeline(one, step)
        else:
            yield Part(one, step, TRANSFORMS)
            if isinstance(step, dict) and is_a(step, TRANSFORMS, *AROUND):
                yield from _of_pipeline(f'{one}.transforms', step.get('transforms'))
