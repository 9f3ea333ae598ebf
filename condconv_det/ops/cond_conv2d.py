"""Convolution with one kernel per example, mixed from experts.

Paper: CondConv: Conditionally Parameterized Convolutions for Efficient Inference
(Yang, Bender, Le, Ngiam, NeurIPS 2019), https://arxiv.org/abs/1904.04971, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from .padding import same_padding

Size = int | tuple[int, int]


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
        weight: [E, Cout, Cin/groups, kh, kw], one kernel per expert.
        bias: [Cout], shared, or [E, Cout], mixed like the kernels.
        stride, dilation, groups: as in `F.conv2d`.
        padding: as in `F.conv2d`, or 'same', TensorFlow's, at any stride.

    Returns:
        [B, Cout, H', W'].

    Raises:
        ValueError: a shape or device does not fit; the message names both.
        TypeError: routing is not floating point, or not of the weight's type outside autocast.
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

    batch = x.shape[0]
    if batch <= 1:
        return _one_kernel(x, routing, weight, bias, stride, padding, dilation, groups)
    kernel = mix_kernels(routing, weight)
    if bias is not None:
        bias = bias.expand(batch, -1) if bias.dim() == 1 else routing @ bias
    if weight.shape[-2:] == (1, 1) and groups == 1 and padding == (0, 0):
        return _per_example_matmul(x, kernel, bias, stride)
    return _grouped_by_example(x, kernel, bias, stride, padding, dilation, groups)


def mix_kernels(routing: Tensor, weight: Tensor) -> Tensor:
    """Each example's kernel, the routing-weighted sum of the experts (paper, eq. 1).

    Args:
        routing: [..., E], any real weights.
        weight: [E, Cout, Cin/groups, kh, kw].

    Returns:
        [..., Cout, Cin/groups, kh, kw].
    """
    return torch.tensordot(routing, weight, dims=1)


def _one_kernel(x, routing, weight, bias, stride, padding, dilation, groups) -> Tensor:
    """A batch of one is a plain convolution; an empty batch one with a kernel of zeros."""
    routing = routing.sum(0)
    if bias is not None and bias.dim() == 2:
        bias = routing @ bias
    return F.conv2d(x, mix_kernels(routing, weight), bias, stride, padding, dilation, groups)


def _per_example_matmul(x, kernel, bias, stride) -> Tensor:
    """1x1 kernels [B, Cout, Cin, 1, 1] as a batch of matrix products."""
    x = x[..., :: stride[0], :: stride[1]]
    height, width = x.shape[-2:]
    kernel = kernel.flatten(2)
    if bias is None:
        y = torch.bmm(kernel, x.flatten(2))
    else:
        y = torch.baddbmm(bias.unsqueeze(-1), kernel, x.flatten(2))
    return y.unflatten(2, (height, width))


def _grouped_by_example(x, kernel, bias, stride, padding, dilation, groups) -> Tensor:
    """All examples side by side as the groups of one convolution of batch 1."""
    batch = x.shape[0]
    y = F.conv2d(
        x.reshape(1, -1, *x.shape[-2:]),
        kernel.flatten(0, 1),
        None if bias is None else bias.flatten(),
        stride,
        padding,
        dilation,
        batch * groups,
    )
    return y.reshape(batch, -1, *y.shape[-2:])


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
    if routing.dtype != weight.dtype and not _autocast_enabled(x.device.type):
        raise TypeError(f'routing is {routing.dtype}, weight {weight.dtype}: they must agree')


def _autocast_enabled(device_type: str) -> bool:
    if hasattr(torch, 'get_autocast_dtype'):  # torch >= 2.4
        return torch.is_autocast_enabled(device_type)
    return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()
