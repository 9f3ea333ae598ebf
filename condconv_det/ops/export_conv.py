"""`cond_conv2d` in operations that a file can hold whose batch size is not known yet.

`cond_conv2d` runs a batch as the groups of one convolution, and a file has to say how many groups.
`single_image_conv2d` and `any_batch_conv2d` take the arguments of `cond_conv2d`, unchecked, and
return the same; experts may be of a narrower type than x and are widened before they are mixed.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from .cond_conv2d import Size
from .kernels import out_size
from .mixing import mix_kernels
from .padding import same_padding

# see `single_image_conv2d`
SMALL_MAP = 32  # places
FEW_EXPERTS = 3


def single_image_conv2d(
    x: Tensor,
    routing: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    mixes_depthwise: bool = False,
) -> Tensor:
    """Convolves a batch of one: by a kernel that is mixed, or by all experts where that is faster.

    A runtime lays out kernels that do not change when it loads them, and computes with these
    faster. So all experts run, each on the input times its routing weight, where the output has few
    places, and each by itself, its output times the weight, where a depthwise layer has few
    experts. That takes E times the multiply-adds where these cost less than the mixing.

    Args:
        x: [1, Cin, H, W].
        routing: [1, E].
        weight: [E, Cout, Cin/groups, kh, kw].
        bias: [Cout] or [E, Cout].
        mixes_depthwise: whether depthwise layers, too, mix few experts in place of running them.

    Returns:
        [1, Cout, H', W'].
    """
    weight = weight.to(x.dtype)
    if bias is not None and bias.dim() == 2:
        bias = (routing @ bias).flatten()
    left, right, top, bottom = _sides(x, weight, stride, padding, dilation)
    if (left, top) != (right, bottom):
        x, left, top = F.pad(x, (left, right, top, bottom)), 0, 0
    how = stride, (top, left), dilation, groups
    few_experts = groups == x.shape[1] == weight.shape[1] and len(weight) <= FEW_EXPERTS
    if few_experts and not mixes_depthwise:
        outputs = [F.conv2d(x, kernel, None, *how) for kernel in weight]
        y = sum(one * y for one, y in zip(routing.unbind(1), outputs))
        return y if bias is None else y + bias[:, None, None]
    size = out_size(x.shape[2:], weight.shape[3:], _pair(stride), (top, left), _pair(dilation))
    if groups == 1 and math.prod(size) <= SMALL_MAP:
        x = (routing[..., None, None, None] * x[:, None]).flatten(1, 2)
        kernel = weight.transpose(0, 1).flatten(1, 2)
    else:
        kernel = (routing @ weight.flatten(1)).view(weight.shape[1:])
    return F.conv2d(x, kernel, bias, *how)


def tap_by_tap(x: Tensor, kernel: Tensor, stride: list[int], dilation: list[int]) -> Tensor:
    """Convolves any batch, without padding, one tap of the kernels at a time.

    Each tap multiplies the input, shifted: a matrix product for each image (1x1 kernels are one
    such product), or, for depthwise kernels, a number for each channel. Multiply-adds are those of
    a convolution.

    Args:
        x: [B, Cin, H, W].
        kernel: each image's, [B, kh, kw, G, Cout/G, Cin/G].
        stride, dilation: (vertical, horizontal).

    Returns:
        [B, Cout, H', W'].
    """
    _, *kernel_size, groups, _, depth = kernel.shape
    size = out_size(x.shape[2:], kernel_size, stride, (0, 0), dilation)
    product = torch.mul if depth == 1 else torch.matmul
    y = 0.0
    for row in range(kernel_size[0]):
        for column in range(kernel_size[1]):
            top, left = row * dilation[0], column * dilation[1]
            shifted = x[
                ...,
                top : top + stride[0] * (size[0] - 1) + 1 : stride[0],
                left : left + stride[1] * (size[1] - 1) + 1 : stride[1],
            ]
            shifted = shifted.flatten(2).unflatten(1, (groups, -1))  # [B, G, Cin/G, H' * W']
            y = y + product(kernel[:, row, column], shifted)
    return y.flatten(1, 2).unflatten(2, size)


def any_batch_conv2d(
    x: Tensor,
    routing: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    convolve: Callable[[Tensor, Tensor, list[int], list[int]], Tensor] = tap_by_tap,
) -> Tensor:
    """Convolves any batch, by `tap_by_tap` or something that computes the same.

    Args:
        x: [B, Cin, H, W].
        routing: [B, E].
        weight: [E, Cout, Cin/groups, kh, kw].
        bias: [Cout] or [E, Cout].

    Returns:
        [B, Cout, H', W'].
    """
    stride, dilation = _pair(stride), _pair(dilation)
    sides = _sides(x, weight, stride, padding, dilation)
    if any(sides):
        x = F.pad(x, sides)
    # taps in front: experts are constant, so that a runtime reorders them once, when it loads them
    kernel = mix_kernels(routing, weight.to(x.dtype).permute(0, 3, 4, 1, 2))
    kernel = kernel.unflatten(3, (groups, -1))  # [B, kh, kw, G, Cout/G, Cin/G]
    y = convolve(x, kernel, list(stride), list(dilation))
    if bias is None:
        return y
    bias = bias if bias.dim() == 1 else routing @ bias
    return y + bias[..., None, None]


def _sides(
    x: Tensor, weight: Tensor, stride: Size, padding: Size | str, dilation: Size
) -> tuple[int, int, int, int]:
    """Zeros around x: (left, right, top, bottom)."""
    if padding == 'same':
        return same_padding(x.shape[-2:], weight.shape[-2:], _pair(stride), _pair(dilation))
    top, left = (0, 0) if padding == 'valid' else _pair(padding)
    return left, left, top, top
