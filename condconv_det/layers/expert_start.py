"""Where experts start: one by one, as in the paper, or as one kernel and noise that sums to zero.

E experts that are initialised one by one mix, at routing weights of 1/2, to a kernel of sqrt(E)/2
times the plain deviation. Started as one kernel, they mix to a plain layer's kernel, put together
as those of a static checkpoint, see `static_weights`.
"""

import sys
import zlib
from contextlib import ExitStack
from copy import deepcopy
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torch import nn

from condconv_det.compat.after_import import after_import

from .expert_fans import expert_fans
from .router import Router
from .static_weights import split_kernel

STARTS = ('paper', 'one-kernel')


def check_init(name: str, init: str) -> None:
    """Raises ValueError, with the argument's name, unless it says where experts start."""
    if init not in STARTS:
        raise ValueError(f'{name} must be one of {STARTS}, got {init!r}')


@torch.no_grad()
def start_experts(layer: nn.Module) -> None:
    """Makes one kernel of the first expert's where the layer's `init` asks for it."""
    if layer.init == 'one-kernel' and not layer.weight.is_meta:
        seed = zlib.crc32(repr(_sample(layer)).encode())  # the same in all processes
        kernel = layer.weight[0]
        layer.weight.copy_(split_kernel(kernel, layer.num_experts, layer.activation, seed))
    keep_experts(layer)


def keep_experts(layer: nn.Module) -> None:
    """Says that the layer's experts, loaded or started, are what they are to be."""
    layer.started = _sample(layer)


def _sample(layer: nn.Module) -> list[float]:
    """Of each expert its first weight, by which one sees whether an initialiser has come by."""
    return [] if layer.weight.is_meta else layer.weight.detach().flatten(1)[:, 0].tolist()


def expert_samples(module: nn.Module) -> dict[nn.Module, list[float]]:
    """Of each layer whose experts start as one kernel, what shows whether they have changed."""
    layers = (layer for layer in module.modules() if getattr(layer, 'init', '') == 'one-kernel')
    return {layer: _sample(layer) for layer in layers}


def start_changed_experts(module: nn.Module, before: dict[nn.Module, list[float]]) -> None:
    """Starts a module's experts again where an initialiser has filled them one by one.

    Args:
        before: `expert_samples` of before the initialiser; what it left alone, such as trained
            experts, stays.
    """
    for layer, sample in expert_samples(module).items():
        if sample not in (layer.started, before.get(layer)):
            start_experts(layer)


def _then_start_experts(init_weights: Any) -> Any:
    """mmengine's and mmcv's initialisers, which fill experts one by one, and what follows them."""

    @wraps(init_weights)
    def init_and_start(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        before = expert_samples(self)
        with expert_fans():
            init_weights(self, *args, **kwargs)
        start_changed_experts(self, before)

    return init_and_start


def _mend(cls: type) -> None:
    cls.init_weights = _then_start_experts(cls.init_weights)


def _mend_initialize(weight_init: ModuleType) -> None:
    initialize = weight_init.initialize

    @wraps(initialize)
    def initialize_all_but_routers(module: nn.Module, init_cfg: dict | list[dict]) -> None:
        # an initialiser of layer='Linear', or one that names a routed layer, meets its router, too
        routers = [layer for layer in module.modules() if isinstance(layer, Router)]
        starts = {router: deepcopy(router.state_dict()) for router in routers}

        def keep_loaded(router: nn.Module, _: Any) -> None:
            starts.pop(router, None)

        with expert_fans(), ExitStack() as hooks:
            for router in routers:
                hooks.enter_context(router.register_load_state_dict_post_hook(keep_loaded))
            initialize(module, init_cfg)
        for router, start in starts.items():
            router.load_state_dict(start)

    weight_init.initialize = initialize_all_but_routers


def _mend_base_module(base_module: ModuleType) -> None:
    # imported before this package, it has the plain one
    base_module.initialize = sys.modules['mmengine.model.weight_init'].initialize
    _mend(base_module.BaseModule)


after_import('mmengine.model.weight_init', _mend_initialize)
after_import('mmengine.model.base_module', _mend_base_module)
after_import('mmcv.cnn.bricks.conv_module', lambda module: _mend(module.ConvModule))
