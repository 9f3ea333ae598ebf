"""Modules made of ops. Blocks are made of mmcv's and mmengine's too, which who wants a layer alone
does not have to import."""

from importlib import import_module
from typing import Any

from .cond_cfg import CondCfg
from .cond_conv2d import CondConv2d
from .cond_linear import CondLinear
from .expert_fans import expert_fans
from .experts import Experts
from .router import Router

_OF_BLOCKS = ('RoutedBlock', 'RoutedSequential', 'route_blocks', 'run_routed')
__all__ = ['CondCfg', 'CondConv2d', 'CondLinear', 'Experts', 'Router', 'expert_fans', *_OF_BLOCKS]


def __getattr__(name: str) -> Any:
    if name in _OF_BLOCKS:
        return getattr(import_module(f'{__name__}.routed'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
