"""What names and shapes of weights do not tell of a backbone: padding, eps, activation, style.

A converted file's `meta['backbone']` is the config of the network that the weights were trained in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# values in which activations of the same kind agree and others do not
PROBE = torch.linspace(-8, 8, 65)


@dataclass
class Setting:
    """A key of a backbone's config that it was trained with another value of.

    Args:
        value: that it was trained with.
        layers: names of those that compute something else without it.
    """

    value: Any
    layers: list[str] = field(default_factory=list)


def differing_settings(backbone: nn.Module, config: Mapping[str, Any]) -> dict[str, Setting]:
    """What to set in a backbone's config, by key, so that it computes what its weights are for.

    Args:
        backbone: into which the weights load, static or routed.
        config: of the backbone that they were trained in.

    Raises:
        Exception: whatever `MODELS.build` makes of a config that it cannot build.
    """
    static = {key: value for key, value in config.items() if key not in ('cond_cfg', 'init_cfg')}
    with torch.device('meta'):  # no weights are filled, no random numbers drawn
        trained = dict(MODELS.build(static).named_modules())
    settings: dict[str, Setting] = {}
    for name, layer in backbone.named_modules():
        found = name in trained and _difference(name, layer, trained[name])
        if found:
            key, value = found
            settings.setdefault(key, Setting(value)).layers.append(name)
    return settings


def _difference(name: str, own: nn.Module, trained: nn.Module) -> tuple[str, Any] | None:
    """The key that makes a layer compute what another one does, and its value there."""
    if isinstance(own, nn.Conv2d) and isinstance(trained, nn.Conv2d):
        # where strides lie is a matter of style, and a detector may dilate on purpose
        alike = own.stride == trained.stride and own.dilation == trained.dilation
        if alike and _padding(own) != _padding(trained):
            same = isinstance(trained, Conv2dAdaptivePadding)
            return 'conv_cfg', dict(type='Conv2dAdaptivePadding') if same else None
    elif isinstance(own, _BatchNorm) and isinstance(trained, _BatchNorm):
        if own.eps != trained.eps:
            kind = 'SyncBN' if isinstance(own, nn.SyncBatchNorm) else 'BN'
            return 'norm_cfg', dict(type=kind, eps=trained.eps)
    elif name.endswith('.activate'):
        if not torch.equal(_activated(own), _activated(trained)):
            return 'act_cfg', dict(type=type(trained).__name__)
    elif getattr(own, 'style', None) != getattr(trained, 'style', None):  # a ResNet's block
        return 'style', trained.style
    return None


def _padding(conv: nn.Conv2d) -> str | tuple[int, ...]:
    """The zeros at each side; 'same' where they are TensorFlow's, whatever they are called."""
    if isinstance(conv, Conv2dAdaptivePadding) or isinstance(conv.padding, str):
        return 'valid' if conv.padding == 'valid' else 'same'
    reach = [(side - 1) * step for side, step in zip(conv.kernel_size, conv.dilation)]
    half = [side / 2 for side in reach]
    if list(conv.padding) == half and (conv.stride == (1, 1) or not any(reach)):
        return 'same'
    return conv.padding


def _activated(activation: nn.Module) -> Tensor:
    return activation(PROBE.clone()).round(decimals=5)  # SiLU and Swish round otherwise
