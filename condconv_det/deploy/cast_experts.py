"""Experts in half precision."""

import copy

import torch
from torch import nn

from condconv_det.layers import Experts
from condconv_det.layers.expert_fans import mark_expert_axis
from condconv_det.ops.operands import HALF_TYPES


def cast_experts(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A copy of a model, for inference, that holds its experts in half precision.

    Experts are most of a routed network's parameters: its file and its memory come near to half.
    Activations, routers, biases and all else keep their type, and experts are mixed in it, so that
    rounding each expert's weights once is all that is lost. A state dict of either model loads into
    the other. `python -m benchmarks.deployed` measures what it changes.

    Args:
        dtype: `torch.bfloat16` rounds a weight by up to 2^-8 of it, whatever its size;
            `torch.float16` by up to 2^-11, where it is above 6e-5, and ends at 65504.

    Raises:
        ValueError: dtype is another one, the model has no experts, or a weight is too large for it.
    """
    if dtype not in HALF_TYPES:
        raise ValueError(f'experts can be cast to {HALF_TYPES}, got {dtype}')
    model = copy.deepcopy(model)
    routed = {name: part for name, part in model.named_modules() if isinstance(part, Experts)}
    if not routed:
        raise ValueError(f'{type(model).__name__} has no experts to cast: it is static')
    for name, layer in routed.items():
        experts = layer.weight.detach().to(dtype)
        if not experts.isfinite().all():
            raise ValueError(
                f'{name or type(model).__name__} has a weight of '
                f'{layer.weight.abs().max().item():g}; {dtype} ends at {torch.finfo(dtype).max:g}'
            )
        layer.weight = mark_expert_axis(nn.Parameter(experts, layer.weight.requires_grad))
    return model
