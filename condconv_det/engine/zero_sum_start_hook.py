"""Experts that start as one kernel rather than each on its own."""

import zlib

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from condconv_det.layers.expert_fans import has_expert_axis
from condconv_det.layers.static_weights import split_kernel


@HOOKS.register_module()
class ZeroSumStartHook(Hook):
    """Starts the experts of every routed layer as one kernel and zero-sum noise.

    The kernel is the first expert's as the config's initialisers left it, so that the mixed kernel
    starts with the plain layer's statistics; E experts initialised one by one, as in the paper, mix
    to one of sqrt(E)/2 times the plain deviation with routing weights of 0.5. Kernel and noise are
    put together as those of a static checkpoint, see `layers.static_weights`.

    A training that starts from a checkpoint, resumed or by `load_from`, is left alone, and so is
    what an `init_cfg` of type Pretrained loads.

    Raises:
        ValueError: before training, the network has no routed layers.
    """

    def __init__(self) -> None:
        self._loaded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._loaded = True

    def before_train(self, runner: Runner) -> None:
        network = runner.model.module if is_model_wrapper(runner.model) else runner.model
        routed = {
            name: layer
            for name, layer in network.named_modules()
            if has_expert_axis(getattr(layer, 'weight', None))
        }
        if not routed:
            raise ValueError(
                f'{type(network).__name__} has no routed layers whose experts could start as one '
                f'kernel; set a cond_cfg or a conv_cfg of CondConv2d, or leave out ZeroSumStartHook'
            )
        if self._loaded:
            return
        pretrained = _pretrained(network)
        for name, layer in routed.items():
            if layer not in pretrained:
                _start_as_one_kernel(layer, zlib.crc32(f'{runner.seed} {name}'.encode()))


@torch.no_grad()
def _start_as_one_kernel(layer: nn.Module, seed: int) -> None:
    kernel = layer.weight[0]
    layer.weight.copy_(split_kernel(kernel, layer.num_experts, layer.activation, seed))


def _pretrained(network: nn.Module) -> set[nn.Module]:
    """The modules whose own or whose parents' `init_cfg` loads a checkpoint."""
    found: set[nn.Module] = set()
    for module in network.modules():
        init_cfg = getattr(module, 'init_cfg', None) or []
        init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
        if any(cfg['type'] == 'Pretrained' for cfg in init_cfgs):
            found.update(module.modules())
    return found
