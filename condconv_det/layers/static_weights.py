"""A static network's weights in a routed network, so that it computes the same.

With a router of zeros every routing weight is the same, 1/2 after a sigmoid, 1/E after a softmax.
Experts whose sum, so weighted, is the static kernel W then give W for every image: `2/E W + d_e`,
or `W + d_e`, where the `d_e` sum to zero and let the experts part ways in training.
"""

import copy
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .router import Router

# of the kernel's own deviation
NOISE = 0.25


def split_kernel(kernel: Tensor, num_experts: int, activation: str, seed: int) -> Tensor:
    """Experts [E, *kernel] that mix to the kernel wherever all routing weights are alike.

    Args:
        kernel: of any shape.
        num_experts: E, at least 1.
        activation: of the router whose weights mix the experts.
        seed: of the noise, which nothing else decides, so that all processes make the same.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_experts, *kernel.shape, generator=generator, device='cpu')
    noise -= noise.mean(0)
    scale = 2 / num_experts if activation == 'sigmoid' else 1.0
    return scale * kernel + noise.to(kernel) * (NOISE * kernel.std(correction=0))


def load_kernel(layer: nn.Module, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Replaces a static kernel in `state_dict`, on its way into a routed layer, by experts.

    Args:
        layer: its `weight` is [E, *kernel], its `activation` that of the router.
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
    seed = zlib.crc32(key.encode())
    kernel = kernel.to(layer.weight.dtype)  # rounded, experts would not mix to it
    state_dict[key] = split_kernel(kernel, num_experts, layer.activation, seed)


def load_router(
    router: Router | None,
    state_dict: dict[str, Tensor],
    prefix: str,
    weights: Sequence[str] = ('weight',),
    expert_dim: int = 5,
) -> None:
    """Adds a router of zeros to a static network's `state_dict`, which has none.

    Args:
        router: of the module that is loading; None if it has none.
        state_dict, prefix: as `nn.Module._load_from_state_dict` gets them. What holds no kernel of
            the module's is not a static network's, and is left alone.
        weights: names of the module's weights that hold experts.
        expert_dim: axes of a weight that holds experts: 5 of a convolution, 3 of a linear layer.

    Raises:
        ValueError: the checkpoint has experts or a router where the network has none, or has no
            router where the network has one.
    """
    tensors = {
        key: value
        for key, value in state_dict.items()
        if key.startswith(prefix) and isinstance(value, Tensor)
    }
    has_experts = any(value.dim() == expert_dim for value in tensors.values())
    has_router = any(key.startswith(prefix + 'router.') for key in tensors)
    layer = prefix[:-1] or 'the layer'
    if has_experts and not weights:
        raise ValueError(
            f'{layer}: the checkpoint has experts here, the network has none: '
            f'they were built with another cond_cfg'
        )
    if has_experts and has_router != (router is not None):
        raise ValueError(
            f'{layer}: the {"checkpoint" if has_router else "network"} has a router here, '
            f'the {"network" if has_router else "checkpoint"} has none: '
            f'they were built with another `routing`, or `cond_cfg.share`'
        )
    own = [tensors[prefix + name] for name in weights if prefix + name in tensors]
    kernels = [value for value in own if value.dim() == expert_dim - 1]
    if kernels and not has_router and router is not None:
        if router.fc.weight.is_meta:  # until `load_state_dict(..., assign=True)` fills it
            router = copy.deepcopy(router).to_empty(device=kernels[0].device)
            router.reset_parameters()
        for name, value in router.state_dict().items():
            zero = name.startswith('fc.')
            state_dict[f'{prefix}router.{name}'] = torch.zeros_like(value) if zero else value
