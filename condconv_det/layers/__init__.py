"""Modules made of ops."""

from .cond_cfg import CondCfg
from .cond_conv2d import CondConv2d
from .conv_module import RoutedConvModule
from .router import Router

__all__ = ['CondCfg', 'CondConv2d', 'RoutedConvModule', 'Router']
