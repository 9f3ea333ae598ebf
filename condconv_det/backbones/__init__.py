"""Backbones, each static or, with `cond_cfg`, CondConv."""

from .efficientnet import CondConvEfficientNet
from .mnasnet import CondConvMnasNet
from .mobilenet_v1 import CondConvMobileNetV1
from .mobilenet_v2 import CondConvMobileNetV2
from .mobilenet_v3 import CondConvMobileNetV3
from .resnet import CondConvResNet

__all__ = [
    'CondConvEfficientNet',
    'CondConvMnasNet',
    'CondConvMobileNetV1',
    'CondConvMobileNetV2',
    'CondConvMobileNetV3',
    'CondConvResNet',
]
