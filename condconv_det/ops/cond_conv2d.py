"""Convolution with one kernel per example, mixed from experts.

Paper: CondConv: Conditionally Parameterized Convolutions for Efficient Inference
(Yang, Bender, Le, Ngiam, NeurIPS 2019), https://arxiv.org/abs/1904.04971, section 3.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from .autocast import autocast_dtype, without_autocast
from .kernels import (
    GroupedConv,
    GroupedPatches,
    Kernel,
    Matmul,
    MixedOutputs,
    MixedProducts,
    OneByOne,
    Pair,
    out_size,
)
from .operands import HALF_TYPES, check_operands
from .padding import same_padding
from .tracing import is_compiling

Size = int | Pair

# A block of mixed kernels is about this large, which two cores' caches hold.
BLOCK_BYTES = 6 * 2**20
# Matrix products of fewer rows are slow.
MIN_BLOCK = 48
# Experts times places, up to which a GPU runs all experts in less time than it mixes large kernels.
FEW_OUTPUTS = 200
# The same of a CPU, for so many examples or more and kernels of so many numbers.
FEW_PRODUCTS, MANY_EXAMPLES, LARGE_KERNEL = 32, 8, 2**15


def cond_conv2d(
    x: Tensor,
    routing: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolves each example with its own routing-weighted sum of the experts' kernels.

    Equal to `F.conv2d(x[b:b+1], (routing[b] @ weight), ...)` for each example b.

    Args:
        x: [B, Cin, H, W]; B may be 0.
        routing: [B, E], any real weights.
        weight: [E, Cout, Cin/groups, kh, kw], one kernel per expert; of half precision, it is
            mixed in routing's.
        bias: [Cout], shared, or [E, Cout], mixed like the kernels.
        stride, dilation, groups: as in `F.conv2d`.
        padding: as in `F.conv2d`, or 'same', TensorFlow's, at any stride.

    Returns:
        [B, Cout, H', W'].

    Raises:
        ValueError: a shape or device does not fit, and the message names both; or an argument is
            out of range.
        TypeError: outside autocast, routing is not of x's type, or weight neither of x's nor of
            half precision.
    """
    plan = _plan(x, routing, weight, bias, stride, padding, dilation, groups)
    if plan.pad:
        x = F.pad(x, plan.pad)
    if plan.step:
        x = x[..., :: plan.step[0], :: plan.step[1]]
    if plan.dtype is None:
        return _convolve(x, routing, weight, bias, plan)
    x = x.to(plan.dtype)
    if x.is_cuda:  # reads half the bytes, and leaves autocast nothing to do
        routing, weight = routing.to(plan.dtype), weight.to(plan.dtype)
        return _convolve(x, routing, weight, bias, plan)
    with without_autocast(x):  # a CPU would only spend time on rounding the experts
        return _convolve(x, routing, weight, bias, plan)


def _convolve(
    x: Tensor, routing: Tensor, weight: Tensor, bias: Tensor | None, plan: 'Plan'
) -> Tensor:
    if routing.dtype != weight.dtype and routing.dtype.itemsize < weight.dtype.itemsize:
        routing = routing.to(weight.dtype)
    y = plan.kernel(x, routing, weight)
    if bias is None:
        return y
    if bias.dim() == 2:
        bias = routing @ bias.to(routing.dtype)
    return y + bias.to(y.dtype).view(-1, y.shape[1], 1, 1)


class Plan(NamedTuple):
    """What the shapes and types of a call decide.

    Args:
        kernel: convolves.
        dtype: what autocast makes of x; None leaves it alone.
        pad: (left, right, top, bottom) zeros to put around x before; None for none.
        step: between the places that a 1x1 kernel sees, (vertical, horizontal); None for all.
    """

    kernel: Kernel
    dtype: torch.dtype | None
    pad: tuple[int, int, int, int] | None
    step: Pair | None


# Those so far, since to check and choose takes as long as a small layer.
_plans: dict[tuple, Plan] = {}
MOST_PLANS = 4096


def _plan(x, routing, weight, bias, stride, padding, dilation, groups) -> Plan:
    dtype = autocast_dtype(x)
    call = x, routing, weight, bias, stride, padding, dilation, groups, dtype
    if is_compiling():
        return _make_plan(*call)
    key = (
        *(x.shape, x.dtype, x.device, routing.shape, routing.dtype, routing.device),
        *(weight.shape, weight.dtype, weight.device, None if bias is None else bias.shape),
        *(stride, padding, dilation, groups, dtype),
    )
    try:
        plan = _plans.get(key)
    except TypeError:  # a size that is a symbol has no hash, nor has a list
        return _make_plan(*call)
    if plan is None:
        if len(_plans) >= MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = _make_plan(*call)
    return plan


def _make_plan(x, routing, weight, bias, stride, padding, dilation, groups, dtype) -> Plan:
    _check(x, routing, weight, bias, groups, dtype)
    stride, dilation = _both('stride', stride), _both('dilation', dilation)
    if min(*stride, *dilation) < 1:
        raise ValueError(f'stride and dilation must be at least 1, got {stride} and {dilation}')
    size, kernel_size = tuple(x.shape[2:]), tuple(weight.shape[3:])
    pad = step = None
    if padding == 'same':
        left, right, top, bottom = same_padding(size, kernel_size, stride, dilation)
        if (left, top) == (right, bottom):
            padding = (top, left)
        else:
            pad, padding = (left, right, top, bottom), (0, 0)
            size = (size[0] + top + bottom, size[1] + left + right)
    elif padding == 'valid':
        padding = (0, 0)
    elif isinstance(padding, str):
        raise ValueError(f"padding must be an integer, a pair, 'same' or 'valid', got {padding!r}")
    padding = _both('padding', padding)
    places = out_size(size, kernel_size, stride, padding, dilation)
    if not is_compiling() and min(places) < 1:  # compiled, a size may be a symbol
        raise ValueError(
            f'a kernel of {kernel_size} with dilation {dilation} does not fit on '
            f'x of {tuple(x.shape[2:])} with padding {padding}'
        )
    if (kernel_size, groups, padding) == ((1, 1), 1, (0, 0)) and stride != (1, 1):
        size, step, stride = places, stride, (1, 1)
    if x.shape[0] == 0:  # not len(x), which fixes the batch size of what is exported
        return Plan(MixedOutputs(stride, padding, dilation, groups), dtype, pad, step)
    given = Operand((*x.shape[:2], *size), dtype or x.dtype, x.device)
    experts = Operand(weight.shape, dtype if dtype and x.is_cuda else weight.dtype, x.device)
    kernel = choose_kernel(given, experts, stride, padding, dilation, groups)
    return Plan(kernel, dtype, pad, step)


def _both(name: str, sizes: Size) -> Pair:
    """(vertical, horizontal); a number, or a tuple of one, says both."""
    pair = _pair(sizes)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2:
        raise ValueError(f'{name} must be an integer or a pair, got {sizes}')
    return pair


class Operand(NamedTuple):
    """What a tensor will be."""

    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device


def choose_kernel(
    x: Tensor | Operand,
    weight: Tensor | Operand,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Kernel:
    """A kernel by shape, from what `benchmarks/kernels.py` and docs/measured show."""
    # which makes one code for one image and one for all other numbers, not one unrolled for each
    compiling = is_compiling()
    if compiling and x.shape[0] == 1:
        return GroupedConv(stride, padding, dilation, groups)
    if groups > 1:
        take = GroupedPatches if compiling else GroupedConv
        return take(stride, padding, dilation, groups)
    if compiling:
        return Matmul(stride, padding, dilation)
    batch, _, *size = x.shape
    experts, out_channels, in_channels, *kernel_size = weight.shape
    on_cpu = x.device.type == 'cpu'
    pointwise = kernel_size == [1, 1] and (stride, padding) == ((1, 1), (0, 0))
    places = math.prod(out_size(size, kernel_size, stride, padding, dilation))
    kernels = batch if weight.dtype == x.dtype else max(batch, experts)  # in x's type
    # bytes, of one output channel
    row = kernels * in_channels * math.prod(kernel_size) * x.dtype.itemsize
    mixed = row * out_channels
    if not (on_cpu or pointwise) and experts * places <= FEW_OUTPUTS:
        return MixedOutputs(stride, padding, dilation)
    blocked = on_cpu and x.dtype not in HALF_TYPES
    if blocked and weight.dtype == x.dtype and batch > 1:
        large = batch >= MANY_EXAMPLES and math.prod(weight.shape[1:]) >= LARGE_KERNEL
        if places == 1 or (large and experts * places <= FEW_PRODUCTS):
            return MixedProducts(stride, padding, dilation)
    if not (pointwise or _patches_pay(x, places, out_channels)):
        if blocked and batch > 1 and mixed > 6 * BLOCK_BYTES:
            return OneByOne(stride, padding, dilation)
        return GroupedConv(stride, padding, dilation, spare=_spare_channels(x, out_channels))
    block = None
    # on maps of more places than channels the product takes the time, and blocks slow it
    if blocked and mixed > 2 * BLOCK_BYTES and places <= out_channels:
        block = max(BLOCK_BYTES // row, MIN_BLOCK)
    return Matmul(stride, padding, dilation, block)


def _patches_pay(x: Tensor | Operand, places: int, out_channels: int) -> bool:
    """Whether a product with patches takes less time than a convolution with groups.

    On large maps patches cost more than large kernels do.
    """
    if x.device.type == 'cpu':
        return (1 if _spare_channels(x, out_channels) else 3) * places <= out_channels
    # cuDNN is slow at many groups, the more so in 16 bits; one example is one group
    return x.shape[0] > 1 and places <= (8 if x.dtype in HALF_TYPES else 1) * out_channels


def _spare_channels(x: Tensor | Operand, out_channels: int) -> int:
    """Output channels that make a convolution with groups faster.

    oneDNN takes up to 2.4 times as long where those of a group are no multiple of 8. One example is
    one group, whose channels do not matter.
    """
    slow = x.device.type == 'cpu' and x.dtype == torch.float32 and x.shape[0] > 1
    return -out_channels % (16 if out_channels > 8 else 8) if slow and out_channels % 8 else 0


def _check(x, routing, weight, bias, groups, autocast) -> None:
    if x.dim() != 4:
        raise ValueError(f'x must be [B, Cin, H, W], got shape {tuple(x.shape)}')
    if weight.dim() != 5:
        raise ValueError(
            f'weight must be [E, Cout, Cin/groups, kh, kw], got shape {tuple(weight.shape)}'
        )
    experts, out_channels, in_channels = weight.shape[:3]
    if x.shape[1] != in_channels * groups:
        raise ValueError(
            f'x has {x.shape[1]} channels; weight {tuple(weight.shape)} with groups={groups} '
            f'takes {in_channels * groups}'
        )
    if out_channels % groups:
        raise ValueError(
            f'weight {tuple(weight.shape)} has {out_channels} output channels, '
            f'which groups={groups} must divide'
        )
    if routing.shape != (x.shape[0], experts):
        raise ValueError(
            f'routing must be [B, E] = [{x.shape[0]}, {experts}], got shape {tuple(routing.shape)}'
        )
    if bias is not None and bias.shape not in ((out_channels,), (experts, out_channels)):
        raise ValueError(
            f'bias must be [Cout] = [{out_channels}] or [E, Cout] = [{experts}, {out_channels}], '
            f'got shape {tuple(bias.shape)}'
        )
    check_operands(x, routing, weight, autocast)
