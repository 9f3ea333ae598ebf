"""Modules made of ops."""

from .cond_cfg import CondCfg
from .cond_conv2d import CondConv2d
from .cond_linear import CondLinear
from .routed import RoutedBlock, RoutedSequential, route_blocks, run_routed
from .router import Router

__all__ = [
    'CondCfg',
    'CondConv2d',
    'CondLinear',
    'RoutedBlock',
    'RoutedSequential',
    'Router',
    'route_blocks',
    'run_routed',
]
