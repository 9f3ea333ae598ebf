"""CondConv for MMDetection: importing this package registers its layers and networks.

The import is quick, because what is registered is itself imported when a registry of mmengine is
first asked for something, and the names below when somebody uses them.
"""

from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from . import compat

compat.install()

from mmengine.registry import Registry  # noqa: E402  whose import compat prepares

__version__ = '1.0.0'
_ROOMS = ('backbones', 'deploy', 'engine', 'heads', 'layers', 'ops', 'weights')
_PLACES = {'CondConv2d': 'layers', 'Router': 'layers', 'cond_conv2d': 'ops'}
__all__ = [*_PLACES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f'{__name__}.{name}')
    if name in _PLACES:
        return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _register() -> None:
    """Imports everything that a config can name."""
    from . import layers  # noqa: F401

    if find_spec('mmdet'):
        from . import backbones, engine, heads  # noqa: F401


_plain_import_from_location = Registry.import_from_location


@wraps(_plain_import_from_location)
def _register_first(registry: Registry) -> None:
    """What a registry calls before it looks something up."""
    Registry.import_from_location = _plain_import_from_location  # the imports look things up, too
    try:
        _register()
    except BaseException:
        Registry.import_from_location = _register_first
        raise
    registry.import_from_location()


Registry.import_from_location = _register_first
