"""Mixing: the sum of experts that is an example's kernel, and its gradients."""

import math

import torch
from torch import Tensor
from torch.autograd import Function

from . import compiled_mixing
from .autocast import without_autocast
from .tracing import is_compiling

# Numbers of a kernel, from which on inner products of kernels are taken in parts; of the longest
# part and of the shortest.
LONG, PART, SHORT = 2**15, 2**12, 2**8


def mix_kernels(routing: Tensor, weight: Tensor) -> Tensor:
    """Each example's kernel, the routing-weighted sum of the experts (paper, eq. 1).

    Args:
        routing: [B, E], any real weights.
        weight: [E, Cout, Cin/groups, kh, kw]; experts of a lower precision are mixed in routing's.

    Returns:
        [B, Cout, Cin/groups, kh, kw], of routing's type, under autocast too.
    """
    with without_autocast(routing):
        rows = mix_rows(routing, weight, routing.dtype)
    return rows.view(-1, *weight.shape[1:])


def mix_rows(routing: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Kernels of a type, each as a row: [B, E] and [E, ...] -> [B, N]."""
    if weight.dtype != routing.dtype:
        if compiled_mixing.can_mix(routing, weight):
            return compiled_mixing.mix(routing, weight).to(dtype)
        weight = weight.to(routing.dtype)
    weight = weight.flatten(1)
    differentiated = torch.is_grad_enabled() and routing.requires_grad and not is_compiling()
    multiply = _Mix.apply if differentiated and _is_long(weight) else torch.mm
    rows = multiply(routing, weight)
    return rows if rows.dtype == dtype else rows.to(dtype)


class _Mix(Function):
    """`torch.mm` of routing weights and experts, with `routing_grad` for its gradient."""

    generate_vmap_rule = True  # of torch.func

    @staticmethod
    def forward(routing, experts):
        return torch.mm(routing, experts)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        routing, experts = ctx.saved_tensors
        grad_routing = grad_experts = None
        if ctx.needs_input_grad[0]:
            grad_routing = routing_grad(grad, experts)
        if ctx.needs_input_grad[1]:
            grad_experts = torch.mm(routing.mT, grad)
        return grad_routing, grad_experts


def routing_grad(kernel_grad: Tensor, weight: Tensor) -> Tensor:
    """[B, E] from kernels' gradients [B, Cout, ...] and experts [E, Cout, ...]."""
    kernel_grad, weight = kernel_grad.flatten(1), weight.to(kernel_grad.dtype).flatten(1)
    if not _is_long(weight):
        return torch.mm(kernel_grad, weight.mT)
    part = math.gcd(weight.shape[1], PART)
    kernel_grad, weight = (rows.unflatten(1, (-1, part)) for rows in (kernel_grad, weight))
    return torch.bmm(kernel_grad.transpose(0, 1), weight.permute(1, 2, 0)).sum(0)


def _is_long(rows: Tensor) -> bool:
    """Whether inner products of rows take a CPU less time in parts, down to a quarter."""
    numbers = rows.shape[1]
    return rows.device.type == 'cpu' and numbers >= LONG and math.gcd(numbers, PART) >= SHORT
