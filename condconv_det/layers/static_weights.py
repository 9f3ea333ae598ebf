"""A static network's weights in a routed network, so that it computes the same.

With a router of zeros every routing weight is the same, 1/2 after a sigmoid, 1/E after a softmax.
Experts whose sum, so weighted, is the static kernel W then give W for every image: `2/E W + d_e`,
or `W + d_e`, where the `d_e` sum to zero and let the experts part ways in training.
"""

import zlib

import torch
from torch import Tensor, nn

from .router import Router

# of the kernel's own deviation
NOISE = 0.25


def load_kernel(
    layer: nn.Module, activation: str, state_dict: dict[str, Tensor], prefix: str
) -> None:
    """Replaces a static kernel in `state_dict`, on its way into a routed layer, by experts.

    The noise depends on nothing but the layer's name, so that all processes load the same.

    Args:
        layer: its `weight` is [E, *kernel].
        activation: of the router whose weights mix the experts.
        state_dict, prefix: as `nn.Module._load_from_state_dict` gets them.

    Raises:
        ValueError: the kernel is of another shape, or there are experts of another number.
    """
    key = prefix + 'weight'
    kernel = state_dict.get(key)
    if kernel is None or kernel.shape == layer.weight.shape:
        return
    num_experts, *shape = layer.weight.shape
    if list(kernel.shape[1:]) == shape:
        raise ValueError(
            f'{key}: the checkpoint has {len(kernel)} experts, the network {num_experts}'
        )
    if list(kernel.shape) != shape:
        raise ValueError(
            f'{key}: the checkpoint has a kernel of {list(kernel.shape)}, the network '
            f'{num_experts} experts of {shape}: they are of different architectures'
        )
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    noise = torch.randn(num_experts, *shape, generator=generator)
    noise -= noise.mean(0)
    scale = 2 / num_experts if activation == 'sigmoid' else 1.0
    noise = noise.to(kernel) * (NOISE * kernel.std(correction=0))
    state_dict[key] = scale * kernel + noise


def load_router(
    router: Router | None,
    state_dict: dict[str, Tensor],
    prefix: str,
    routed: bool = True,
    expert_dim: int = 5,
) -> None:
    """Adds a router of zeros to a static network's `state_dict`, which has none.

    Args:
        router: of the module that is loading; None if it has none.
        state_dict, prefix: as `nn.Module._load_from_state_dict` gets them.
        routed: whether the module has experts.
        expert_dim: axes of a weight that holds experts: 5 of a convolution, 3 of a linear layer.

    Raises:
        ValueError: the checkpoint has experts or a router where the network has none, or has no
            router where the network has one.
    """
    weights = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
    has_experts = any(value.dim() == expert_dim for value in weights.values())
    has_router = any(key.startswith(prefix + 'router.') for key in weights)
    if has_experts and not routed:
        raise ValueError(
            f'{prefix[:-1]}: the checkpoint has experts here, the network has none: '
            f'they were built with another cond_cfg'
        )
    if has_experts and has_router != (router is not None):
        raise ValueError(
            f'{prefix[:-1]}: the {"checkpoint" if has_router else "network"} has a router here, '
            f'the {"network" if has_router else "checkpoint"} has none: '
            f'they were built with another cond_cfg.share'
        )
    if weights and not has_router and router is not None:
        for name, value in router.state_dict().items():
            zero = name.startswith('fc.')
            state_dict[f'{prefix}router.{name}'] = torch.zeros_like(value) if zero else value
