"""Matrix products and dense convolutions that mix their experts inside the kernel, on a GPU.

Mixed first, the kernels are a [B, Cout, Cin * kh * kw] tensor, written once and read again by every
product of forward and backward. Here it never exists, and nothing but the inputs is kept.
"""

import os
from importlib.util import find_spec

import torch
from torch import Tensor, library
from torch.nn import functional as F

from .autocast import without_autocast

# Triton 3, the first with an interpreter that can test these kernels, comes with torch 2.4, the
# first with `custom_op`.
_AVAILABLE = hasattr(library, 'custom_op') and find_spec('triton') is not None
_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'  # Triton's own switch: any device will do

# A cache that mixed kernels fit in makes writing and reading them cheap: 40 MB on an A100, 50 on an
# H100, and one number here, so that a network takes the same path everywhere.
_L2_BYTES = 40_000_000
_POSITIONS = 128  # most columns of x that share one mixing


def is_available() -> bool:
    """Whether Triton 3 and torch 2.4 or later are installed; says nothing of a GPU."""
    return _AVAILABLE


def pays(x: Tensor, weight: Tensor, positions: int) -> bool:
    """Whether mixing inside the product should beat mixing first; by arithmetic, not measured.

    Per element of a kernel and example, mixing first writes and reads one number in x's type, in
    memory where the mixed kernels outgrow the L2 cache. Mixing inside reads E/2 numbers in weight's
    type, since a tile serves two examples, for each 128 positions; but from the cache, some three
    times as fast. In float32 the product itself takes the time: only 16-bit types gain.

    Args:
        x: [B, ...], in the type of the product.
        weight: [E, Cout, ...], the experts.
        positions: columns of each example's product, H' * W'.
    """
    if not (_AVAILABLE and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)):
        return False
    experts = weight.shape[0]
    mixed = x.shape[0] * weight.numel() // experts * x.element_size()
    mixings = (positions + _POSITIONS - 1) // _POSITIONS
    read_inside = mixings * experts * weight.element_size() / 2
    return mixed > _L2_BYTES and read_inside <= 3 * 2 * x.element_size()


def dense_conv(
    x: Tensor,
    routing: Tensor,
    weight: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """Convolves each example, in one group, with its own sum of the experts.

    Args:
        x: [B, Cin, H, W], contiguous or channels-last; any other layout is copied.
        routing: [B, E].
        weight: [E, Cout, Cin, kh, kw].
        stride, padding, dilation: as in `F.conv2d`, (vertical, horizontal).

    Returns:
        [B, Cout, H', W'] in x's type.

    Raises:
        ValueError, TypeError: as `mixed_matmul`.
    """
    kernel_size = weight.shape[-2:]
    height, width = (
        (size + 2 * pad - dilate * (kernel - 1) - 1) // step + 1
        for size, pad, dilate, kernel, step in zip(
            x.shape[-2:], padding, dilation, kernel_size, stride
        )
    )
    if kernel_size == (1, 1) and padding == (0, 0):
        columns = x[..., :: stride[0], :: stride[1]].flatten(2)
    else:
        # kh * kw times x in memory: little beside the kernels where `pays`, on small maps.
        columns = F.unfold(x, kernel_size, dilation, padding, stride)
    return mixed_matmul(columns, routing, weight.flatten(2)).unflatten(2, (height, width))


def mixed_matmul(x: Tensor, routing: Tensor, weight: Tensor) -> Tensor:
    """y[b] = sum_e routing[b, e] * weight[e] @ x[b], summed in float32, without mixed kernels.

    Any strides will do. Experts are mixed in float32 and rounded to x's type. Weights in x's type
    read twice as fast as float32 ones. Gradients to any order; beyond the first they come from
    PyTorch's own products. Autocast does not reach inside: cast x before.

    Args:
        x: [B, K, N], float32, bfloat16 or float16, on a GPU.
        routing: [B, E], of one of these types.
        weight: [E, M, K], of one of these types.

    Returns:
        [B, M, N] in x's type, with x's order of axes in memory, so that channels-last stays so.

    Raises:
        ValueError: a shape or device does not fit; the message names both.
        TypeError: a type is none of the three.
        RuntimeError: Triton is missing.
    """
    if not _AVAILABLE:
        raise RuntimeError(
            f'mixed_matmul needs Triton and torch 2.4, found torch {torch.__version__}'
        )
    if x.dim() != 3 or weight.dim() != 3 or x.shape[1] != weight.shape[2]:
        raise ValueError(
            f'x must be [B, K, N] and weight [E, M, K], '
            f'got shapes {tuple(x.shape)} and {tuple(weight.shape)}'
        )
    if routing.shape != (x.shape[0], weight.shape[0]):
        raise ValueError(
            f'routing must be [B, E] = [{x.shape[0]}, {weight.shape[0]}], '
            f'got shape {tuple(routing.shape)}'
        )
    if not x.device == routing.device == weight.device:
        raise ValueError(
            f'x, routing and weight must be on one device, '
            f'got {x.device}, {routing.device} and {weight.device}'
        )
    if not (x.is_cuda or _INTERPRETED):
        raise ValueError(f'x must be on a GPU, got {x.device}')
    for name, tensor in dict(x=x, routing=routing, weight=weight).items():
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(f'{name} must be float32, bfloat16 or float16, got {tensor.dtype}')
    return torch.ops.condconv_det.mixed_matmul(x, routing, weight)


class _MixedMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, routing, weight):
        ctx.save_for_backward(x, routing, weight)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.condconv_det.mixed_matmul(x, routing, weight)

    @staticmethod
    def backward(ctx, grad_y):
        x, routing, weight = ctx.saved_tensors
        grad_x = grad_routing = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.condconv_det.mixed_matmul(grad_y, routing, weight.transpose(1, 2))
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            # The kernel has no derivative of its own, so create_graph=True takes the other.
            grads = (
                _differentiable_expert_grads
                if torch.is_grad_enabled()
                else torch.ops.condconv_det.expert_grads
            )
            grad_routing, grad_weight = grads(grad_y, x, routing, weight)
        return grad_x, grad_routing, grad_weight


def _differentiable_expert_grads(grad_y, x, routing, weight) -> tuple[Tensor, Tensor]:
    with without_autocast(x):
        grad_kernel = torch.bmm(grad_y.float(), x.float().transpose(1, 2))
        grad_routing = torch.einsum('bmk,emk->be', grad_kernel, weight.float())
        grad_weight = torch.einsum('be,bmk->emk', routing.float(), grad_kernel)
    return grad_routing.to(routing.dtype), grad_weight.to(weight.dtype)


def _launch_mixed_matmul(x, routing, weight) -> Tensor:
    from . import triton_kernels  # imports Triton, which may be missing

    y = _empty_product(x, routing, weight)
    triton_kernels.mixed_matmul(x, routing, weight, y, _POSITIONS)
    return y


def _launch_expert_grads(grad_y, x, routing, weight) -> tuple[Tensor, Tensor]:
    from . import triton_kernels

    return triton_kernels.expert_grads(grad_y, x, routing, weight)


def _empty_product(x, routing, weight) -> Tensor:
    batch, _, positions = x.shape
    rows = weight.shape[1]
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, positions, rows).transpose(1, 2)
    return x.new_empty(batch, rows, positions)


# Operators rather than plain functions, so that torch.compile takes each as one node; not by
# `custom_op`, which torch before 2.4 lacks, and this module must import there.
_library = library.Library('condconv_det', 'FRAGMENT')
_library.define('mixed_matmul(Tensor x, Tensor routing, Tensor weight) -> Tensor')
_library.impl('mixed_matmul', _launch_mixed_matmul, 'CompositeExplicitAutograd')
_library.impl('mixed_matmul', _MixedMatmul.apply, 'Autograd')
_library.impl('mixed_matmul', _empty_product, 'Meta')
_library.define(
    'expert_grads(Tensor grad_y, Tensor x, Tensor routing, Tensor weight) -> (Tensor, Tensor)'
)
_library.impl('expert_grads', _launch_expert_grads, 'CompositeExplicitAutograd')
_library.impl(
    'expert_grads',
    lambda grad_y, x, routing, weight: (
        torch.empty_like(routing, memory_format=torch.contiguous_format),
        torch.empty_like(weight, memory_format=torch.contiguous_format),
    ),
    'Meta',
)
