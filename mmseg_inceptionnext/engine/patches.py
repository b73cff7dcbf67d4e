"""What this package holds on to inside MMEngine; tests/test_engine/test_held_names.py fails when a version moves it.

Nothing of MMEngine is replaced. Where it has no public way, subclasses of ours use what their base classes keep to
themselves, and the functions below read or set an attribute.
"""
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import AmpOptimWrapper, BaseOptimWrapper, OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn

HELD = {
    OptimWrapper: ('_accumulative_counts', ),  # how many batches make a step: no property says it
    AmpOptimWrapper: ('_scale_update_param', 'loss_scaler', 'cast_dtype'),  # __init__ refuses CPUs: ours sets them
    BaseDataPreprocessor: ('_non_blocking', ),  # MMSegmentation's subclass does not take the setting
    IterBasedTrainLoop: ('dataloader_iterator', '_decide_current_val_interval'),  # to skip without loading
    CheckpointHook: (  # to remove files once others are written, and to know of which metrics more is better
        '_save_checkpoint_with_step', '_save_best_checkpoint', 'file_backend', '_default_greater_keys'),
}


def accumulated(wrapper: BaseOptimWrapper) -> int:
    """How many batches make a step of the optimizer."""
    return getattr(wrapper, '_accumulative_counts', 1)


def copy_without_waiting(model: nn.Module) -> None:
    """Lets the preprocessors of a model, also of one that averages views, copy batches to a GPU while it computes."""
    for module in model.modules():
        if isinstance(module, BaseDataPreprocessor):
            module._non_blocking = True
