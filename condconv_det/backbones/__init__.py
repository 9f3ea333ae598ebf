"""Backbones, each static or, with `cond_cfg`, CondConv."""

from .mobilenet_v1 import CondConvMobileNetV1

__all__ = ['CondConvMobileNetV1']
