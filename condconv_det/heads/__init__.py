"""Heads that mmdet lacks or that can be routed."""

from .ssd_anchors import TFSSDAnchorGenerator
from .ssd_head import CondConvSSDHead

__all__ = ['CondConvSSDHead', 'TFSSDAnchorGenerator']
