"""Names that have moved: for one version they can be imported from their old places too, with a warning."""
import importlib
import warnings
from typing import Any, Callable

# By the old package: each name, and the module that it is in now; after a colon its new name.
MOVED = dict(
    engine=dict(
        dict.fromkeys(('CheckpointError', 'ConfigError', 'NonFiniteLossError', 'UnsafeCheckpointError'), 'errors'),
        **dict.fromkeys(('check_segmentor', 'choose_checkpoint', 'embedded_config', 'guarded_build', 'load_source',
                         'safe_checkpoints'), 'checkpoints'),
        CPURunner='engine:SegRunner', load_pretrained='models.backbones.pretrained'),
    **{'engine.atomic': dict(why_broken='checkpoints.files:find_damage', **dict.fromkeys(
        ('checkpoints_in', 'choose_checkpoint', 'make_folder', 'write_atomically'), 'checkpoints.files'))},
    apis=dict(
        ConfigError='errors', count_complexity='analysis', load_config='config', test='apis:evaluate',
        **dict.fromkeys(('PROTOCOLS', 'Protocol', 'apply_protocol'), 'evaluation')),
    datasets=dict.fromkeys(('BrokenSampleError', 'LabelError', 'MissingDatasetError', 'SampleError'), 'errors'),
    inference=dict(Output='inference:ResultWriter'), export=dict(Settings='export:ExportSettings'),
    visualization=dict.fromkeys(('describe', 'draw_samples', 'plot_log', 'read_run', 'visualize_features'), 'analysis'))


def moved_from(package: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that finds what has moved out of it."""
    def find(name: str) -> Any:
        if name not in MOVED[package]:
            raise AttributeError(f"module 'mmseg_inceptionnext.{package}' has no attribute {name!r}")
        module, _, new_name = MOVED[package][name].partition(':')
        place = f'mmseg_inceptionnext.{module}'
        warnings.warn(f'mmseg_inceptionnext.{package}.{name} is now {place}.{new_name or name}', FutureWarning,
                      stacklevel=2)
        return getattr(importlib.import_module(place), new_name or name)
    return find
