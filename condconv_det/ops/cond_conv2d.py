"""Convolution with one kernel per example, mixed from experts.

Paper: CondConv: Conditionally Parameterized Convolutions for Efficient Inference
(Yang, Bender, Le, Ngiam, NeurIPS 2019), https://arxiv.org/abs/1904.04971, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from .autocast import autocast_dtype, without_autocast
from .kernels import GroupedConv, GroupedPatches, Kernel, Matmul, OneByOne, Pair, mix_kernels
from .padding import same_padding
from .tracing import is_compiling

Size = int | Pair

HALF_TYPES = (torch.bfloat16, torch.float16)

# A block of mixed kernels is about this large, which two cores' caches hold.
BLOCK_BYTES = 6 * 2**20
# Matrix products of fewer rows are slow.
MIN_BLOCK = 48


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
        ValueError: a shape or device does not fit; the message names both.
        TypeError: outside autocast, routing is not of x's type, or weight neither of x's nor of
            half precision.
    """
    _check(x, routing, weight, bias, groups)
    stride, dilation = _pair(stride), _pair(dilation)
    if padding == 'same':
        left, right, top, bottom = same_padding(x.shape[-2:], weight.shape[-2:], stride, dilation)
        if (left, top) == (right, bottom):
            padding = (top, left)
        else:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    elif padding == 'valid':
        padding = (0, 0)
    elif isinstance(padding, str):
        raise ValueError(f"padding must be an integer, a pair, 'same' or 'valid', got {padding!r}")
    padding = _pair(padding)
    if weight.shape[-2:] == (1, 1) and groups == 1 and padding == (0, 0):
        x, stride = x[..., :: stride[0], :: stride[1]], (1, 1)

    dtype = autocast_dtype(x)
    if dtype is None:
        return _convolve(x, routing, weight, bias, stride, padding, dilation, groups)
    x = x.to(dtype)
    if x.is_cuda:  # reads half the bytes, and leaves autocast nothing to do
        routing, weight = routing.to(dtype), weight.to(dtype)
        return _convolve(x, routing, weight, bias, stride, padding, dilation, groups)
    with without_autocast(x):  # a CPU would only spend time on rounding the experts
        return _convolve(x, routing, weight, bias, stride, padding, dilation, groups)


def _convolve(x, routing, weight, bias, stride, padding, dilation, groups) -> Tensor:
    if routing.dtype.itemsize < weight.dtype.itemsize:
        routing = routing.to(weight.dtype)
    if x.shape[0] == 0:  # not len(x), which fixes the batch size of what is exported
        kernel = mix_kernels(routing.sum(0, keepdim=True), weight)[0].to(x.dtype)
        y = F.conv2d(x, kernel, None, stride, padding, dilation, groups)
    else:
        convolve = choose_kernel(x, weight, stride, padding, dilation, groups)
        y = convolve(x, routing, weight)
    if bias is None:
        return y
    if bias.dim() == 2:
        bias = routing @ bias.to(routing.dtype)
    return y + bias.to(y.dtype).view(-1, y.shape[1], 1, 1)


def choose_kernel(
    x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Kernel:
    """A kernel by shape, from what `benchmarks/kernels.py` and docs/measured show."""
    compiling = is_compiling()  # makes one code for all batch sizes, not one unrolled for each
    if groups > 1:
        take = GroupedPatches if compiling else GroupedConv
        return take(stride, padding, dilation, groups)
    experts, out_channels, _, *kernel_size = weight.shape
    if compiling:
        return Matmul(stride, padding, dilation)
    on_cpu = x.device.type == 'cpu'
    pointwise = kernel_size == [1, 1] and (stride, padding) == ((1, 1), (0, 0))
    places = x.shape[2] * x.shape[3] // (stride[0] * stride[1])
    kernels = len(x) if weight.dtype == x.dtype else max(len(x), experts)  # in x's type
    row = kernels * weight[0, 0].numel() * x.element_size()  # bytes, of one output channel
    mixed = row * out_channels
    blocked = on_cpu and x.dtype not in HALF_TYPES
    if not (pointwise or _patches_pay(x, places, out_channels)):
        if blocked and len(x) > 1 and mixed > 6 * BLOCK_BYTES:
            return OneByOne(stride, padding, dilation)
        return GroupedConv(stride, padding, dilation)
    block = None
    # on maps of more places than channels the product takes the time, and blocks slow it
    if blocked and mixed > 2 * BLOCK_BYTES and places <= out_channels:
        block = max(BLOCK_BYTES // row, MIN_BLOCK)
    return Matmul(stride, padding, dilation, block)


def _patches_pay(x: Tensor, places: int, out_channels: int) -> bool:
    """Whether a product with patches takes less time than a convolution with groups.

    On large maps patches cost more than large kernels do.
    """
    if x.device.type == 'cpu':
        return 3 * places <= out_channels
    # cuDNN is slow at many groups, the more so in 16 bits; one example is one group
    return len(x) > 1 and places <= (8 if x.dtype in HALF_TYPES else 1) * out_channels


def _check(x, routing, weight, bias, groups) -> None:
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
    if routing.shape != (x.shape[0], experts):
        raise ValueError(
            f'routing must be [B, E] = [{x.shape[0]}, {experts}], got shape {tuple(routing.shape)}'
        )
    if bias is not None and bias.shape not in ((out_channels,), (experts, out_channels)):
        raise ValueError(
            f'bias must be [Cout] = [{out_channels}] or [E, Cout] = [{experts}, {out_channels}], '
            f'got shape {tuple(bias.shape)}'
        )
    if not routing.device == weight.device == x.device:
        raise ValueError(
            f'x, routing and weight must be on one device, '
            f'got {x.device}, {routing.device} and {weight.device}'
        )
    if not routing.is_floating_point():
        raise TypeError(f'routing must be floating point, got {routing.dtype}')
    if autocast_dtype(x):
        return
    if routing.dtype != x.dtype:
        raise TypeError(f'routing is {routing.dtype}, x {x.dtype}: they must agree')
    if weight.dtype != x.dtype and weight.dtype not in HALF_TYPES:
        raise TypeError(
            f'weight is {weight.dtype}, x {x.dtype}: they must agree, '
            f'or only weight be in half precision'
        )
