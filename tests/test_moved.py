"""What has moved can be imported from its old place too."""
import importlib

import pytest

from mmseg_inceptionnext.moved import MOVED


@pytest.mark.parametrize('package', MOVED)
def test_old_places_give_the_same_with_a_warning(package):
    old = importlib.import_module(f'mmseg_inceptionnext.{package}')
    for name, place in MOVED[package].items():
        module, _, new_name = place.partition(':')
        with pytest.warns(FutureWarning, match=f'{package}.{name} is now'):
            found = getattr(old, name)
        assert found is getattr(importlib.import_module(f'mmseg_inceptionnext.{module}'), new_name or name)
    with pytest.raises(AttributeError, match='nothing'):
        getattr(old, 'nothing')  # noqa: B009
