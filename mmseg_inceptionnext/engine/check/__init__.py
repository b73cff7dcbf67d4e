from .agreement import check_custom_keys, check_datasets, check_save_best
from .explain import built_from
from .settings import check_settings, check_views
from .try_run import TryRunHook, explained

__all__ = [
    'TryRunHook', 'built_from', 'check_custom_keys', 'check_datasets', 'check_save_best', 'check_settings',
    'check_views', 'explained'
]
