"""The config of the static network in a routed one's place."""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, MODELS, TASK_UTILS
from torch import nn

from condconv_det.analysis.configs import type_name
from condconv_det.backbones.efficientnet import DEEP
from condconv_det.layers import CondConv2d
from condconv_det.weights.files import read_checkpoint

STATIC_OF_DEEP = 'b1'  # the same layers
STATIC_LAYERS = {'CondConv2d': 'Conv2d', 'CondLinear': 'Linear'}
# what a routed layer takes and the static one does not
OF_EXPERTS = {
    name
    for name, parameter in inspect.signature(CondConv2d).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
NEED_EXPERTS = ('RoutingHook', 'CondConvOptimWrapperConstructor')
PRETRAINED = ('Pretrained', 'PretrainedInit')  # its names as a text and as a class
HOOKS_OF = ('custom_hooks', 'default_hooks')


def static_config(cfg: Config, model: nn.Module) -> Config:
    """A routed network's config without `cond_cfg`, routed layers and what goes with experts.

    Where nothing of this package is left but hooks, these go and with them its import, so that
    plain MMDetection builds and trains the network.

    Args:
        cfg: is not changed; mmdet's detectors change theirs when they are built.
        model: built from a copy of it.
    """
    static = copy.deepcopy(cfg)
    for key, value in list(static.items()):  # what the config's own lines used as variables
        if key == 'cond_cfg' or (isinstance(value, Mapping) and _is_routed_layer(value)):
            static.pop(key)
    static.model = _static(cfg.model.to_dict(), model, ())  # with classes by their names
    static.load_from, static.resume = None, False  # of the routed network's training
    static.pop('work_dir', None)
    optim_wrapper = static.get('optim_wrapper') or {}
    if type_name(optim_wrapper.get('constructor')) in NEED_EXPERTS:
        optim_wrapper.pop('constructor')
    (optim_wrapper.get('paramwise_cfg') or {}).pop('expert_lr_mult', None)

    ours = _names_of_ours()
    apart = not ours & set(_types({k: v for k, v in static.items() if k not in HOOKS_OF}))
    unwanted = {*NEED_EXPERTS, *(ours if apart else ())}
    if static.get('custom_hooks'):
        static.custom_hooks = [
            hook for hook in static.custom_hooks if type_name(hook['type']) not in unwanted
        ]
    for key, hook in list((static.get('default_hooks') or {}).items()):
        if hook and type_name(hook['type']) in unwanted:
            static.default_hooks.pop(key)
    if apart and static.get('custom_imports'):
        imports = static.custom_imports.imports
        others = [imports] if isinstance(imports, str) else list(imports)
        static.custom_imports.imports = [name for name in others if name != 'condconv_det']
        if not static.custom_imports.imports:
            static.pop('custom_imports')
    return static


def _static(node: Any, model: nn.Module, path: tuple[str, ...]) -> Any:
    """A part of a model's config; `path` leads to it."""
    if isinstance(node, list | tuple):
        return type(node)(
            _static(value, model, (*path, str(index))) for index, value in enumerate(node)
        )
    if not isinstance(node, Mapping):
        return node
    if _is_routed_layer(node):
        return _static_layer(node, _module_at(model, path))
    if type_name(node.get('type')) in PRETRAINED and _has_experts(node['checkpoint']):
        return None  # no static layer could start from it
    kept = {
        key: _static(value, model, (*path, key)) for key, value in node.items() if key != 'cond_cfg'
    }
    if kept.get('arch') == DEEP:  # routed without a cond_cfg
        kept['arch'] = STATIC_OF_DEEP
    return kept


def _is_routed_layer(node: Mapping) -> bool:
    return type_name(node.get('type')) in STATIC_LAYERS


def _static_layer(node: Mapping, module: nn.Module) -> dict | None:
    """What builds the static layers of a module whose routed layers `node` built."""
    name = STATIC_LAYERS[type_name(node['type'])]
    routed = [layer for layer in module.modules() if isinstance(layer, CondConv2d)]
    if name == 'Conv2d' and any(layer.padding == 'same' for layer in routed):
        name = 'Conv2dAdaptivePadding'  # TensorFlow's, at any stride
    rest = {key: value for key, value in node.items() if key not in {'type', *OF_EXPERTS}}
    # not a missing key, whose default may be another layer
    return dict(type=name, **rest) if rest or name != 'Conv2d' else None


def _has_experts(checkpoint: str) -> bool:
    """Whether a checkpoint on the local disk is of a routed network."""
    file = Path(checkpoint).expanduser()
    return file.is_file() and any('.router.' in key for key in read_checkpoint(file)[0])


def _module_at(model: nn.Module, path: tuple[str, ...]) -> nn.Module:
    """The innermost module on a config's path."""
    for name in path:
        child = getattr(model, name, None)
        if not isinstance(child, nn.Module):
            break
        model = child
    return model


def _types(node: Any) -> list[str]:
    """Names of all classes in a config."""
    if isinstance(node, Mapping):
        own = [type_name(node['type'])] if 'type' in node else []
        return own + [name for value in node.values() for name in _types(value)]
    if isinstance(node, list | tuple):
        return [name for value in node for name in _types(value)]
    return []


def _names_of_ours() -> set[str]:
    return {
        name
        for registry in (MODELS, TASK_UTILS, METRICS, HOOKS)
        for name, cls in registry.module_dict.items()
        if cls.__module__.startswith('condconv_det.')
    }
