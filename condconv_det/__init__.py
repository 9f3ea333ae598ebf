"""CondConv for MMDetection: importing this package registers its layers and networks."""

from . import compat

compat.install()

from . import backbones, deploy, engine, heads, layers, ops, weights  # noqa: E402
from .layers import CondConv2d, Router  # noqa: E402
from .ops import cond_conv2d  # noqa: E402

__version__ = '0.2.0'
__all__ = [
    'CondConv2d',
    'Router',
    'backbones',
    'cond_conv2d',
    'deploy',
    'engine',
    'heads',
    'layers',
    'ops',
    'weights',
]
