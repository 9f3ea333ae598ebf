"""Heads that mmdet lacks or that can be routed."""

from importlib.util import find_spec

from .retina_head import CondConvRetinaHead, CondConvRetinaSepBNHead
from .ssd_anchors import TFSSDAnchorGenerator
from .ssd_head import CondConvSSDHead

__all__ = [
    'CondConvRetinaHead',
    'CondConvRetinaSepBNHead',
    'CondConvSSDHead',
    'TFSSDAnchorGenerator',
]

# mmpretrain is an extra, [classification]; mmdet, too, imports it where it is installed
if find_spec('mmpretrain'):
    from .cls_head import CondConvClsHead  # noqa: F401

    __all__ += ['CondConvClsHead']
