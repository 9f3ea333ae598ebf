"""Deformable convolution by mmcv's names, on torchvision's kernels.

The functions fill the buffers that mmcv.ops allocates; the arguments that hold mmcv's scratch space
are `columns` and `ones`, and `im2col_step` sizes it. Follows mmcv 2.1.0's ops/csrc/pytorch/
{deform_conv,modulated_deform_conv}.cpp.
"""

import weakref
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .deform_kernels import Geometry, convolve, gradients_of


class KernelGradient(NamedTuple):
    """A kernel's gradient, and which backward pass through the graph it belongs to."""

    grad_output: weakref.ref
    grad_output_version: int
    gradient: Tensor

    def is_of(self, grad_output: Tensor) -> bool:
        return (
            self.grad_output() is grad_output and self.grad_output_version == grad_output._version
        )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve samples at shifted places (arXiv 1703.06211).

    Args:
        input: [B, Cin, H, W].
        weight: [Cout, Cin/group, kH, kW].
        offset: [B, deformable_group * kH * kW * 2, H', W'], y before x, in pixels of input.
        output: [B, Cout, H', W'], filled.
    """
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(convolve(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of `deform_conv_forward` with respect to input and offset.

    Args:
        grad_output: [B, Cout, H', W'].
        grad_input: like input, filled.
        grad_offset: like offset, filled.
        columns: scratch, left holding the kernel's gradient for `deform_conv_backward_parameters`.

    The other arguments are those of `deform_conv_forward`.
    """
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradients = gradients_of(grad_output, input, weight, offset, None, geometry)
    grad_input.copy_(gradients.input)
    grad_offset.copy_(gradients.offset)
    # torchvision computes all gradients at once, and mmcv asks for the kernel's next, with the
    # same scratch: keeping it there halves the time of a training step's backward pass.
    columns.kernel_gradient = KernelGradient(
        weakref.ref(grad_output), grad_output._version, gradients.weight
    )


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Gradient of `deform_conv_forward` with respect to the kernel, times scale.

    Args:
        grad_output: [B, Cout, H', W'].
        grad_weight: [Cout, Cin/group, kH, kW], filled.
        columns: scratch, with the kernel's gradient where `deform_conv_backward_input` left it.

    The other arguments are those of `deform_conv_forward`.
    """
    left = columns.__dict__.pop('kernel_gradient', None)
    if left is not None and left.is_of(grad_output):
        grad_weight.copy_(left.gradient * scale)
        return
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The kernel only passes on its shape to its own gradient.
    weight = torch.zeros_like(grad_weight)
    gradients = gradients_of(grad_output, input, weight, offset, None, geometry)
    grad_weight.copy_(gradients.weight * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve samples at shifted places, each times its mask (arXiv 1811.11168).

    Args:
        input: [B, Cin, H, W].
        weight: [Cout, Cin/group, kernel_h, kernel_w].
        bias: [Cout], or anything without `with_bias`.
        offset: [B, deformable_group * kernel_h * kernel_w * 2, H', W'], y before x, in pixels; of a
            larger map the start is read, see `_start_of`.
        mask: [B, deformable_group * kernel_h * kernel_w, H', W'], or larger likewise.
        output: [B, Cout, H', W'], filled.

    Raises:
        ValueError: offset or mask has fewer values than the output needs.
    """
    geometry = Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    )
    offset = _start_of('offset', offset, output)
    mask = _start_of('mask', mask, output)
    output.copy_(convolve(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of `modulated_deform_conv_forward` with respect to all its tensors.

    Args:
        grad_output: [B, Cout, H', W'].
        grad_input, grad_weight, grad_bias, grad_offset, grad_mask: like their namesakes, filled
            (grad_bias only with `with_bias`).

    The other arguments are those of `modulated_deform_conv_forward`.
    """
    geometry = Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    )
    offset = _start_of('offset', offset, grad_output)
    mask = _start_of('mask', mask, grad_output)
    gradients = gradients_of(grad_output, input, weight, offset, mask, geometry)
    grad_input.copy_(gradients.input)
    grad_weight.copy_(gradients.weight)
    _fill_start(grad_offset, gradients.offset)
    _fill_start(grad_mask, gradients.mask)
    if with_bias:
        grad_bias.copy_(gradients.bias)


def _start_of(name: str, maps: Tensor, output: Tensor) -> Tensor:
    """Each image's maps, read from their start on as if they had the output's size.

    mmcv's modulated convolution never compares the two. mmdet's DyHead and GLIP's DyConv hand it
    the offsets of one level of a pyramid for the smaller output of the next, and are trained so.

    Args:
        maps: [B, C, h, w], the argument `name`.
        output: [B, Cout, H', W'].

    Returns:
        [B, C, H', W'].

    Raises:
        ValueError: maps are smaller than the output; mmcv would read what lies behind them.
    """
    batch, channels, *size = maps.shape
    needed = output.shape[2:]
    if size == list(needed):
        return maps
    if size[0] * size[1] < needed.numel():
        raise ValueError(
            f'{name} must have at least the {needed[0]}x{needed[1]} places of the output, '
            f'got {size[0]}x{size[1]}'
        )
    return maps.flatten(1)[:, : channels * needed.numel()].view(batch, channels, *needed)


def _fill_start(grad_maps: Tensor, gradient: Tensor) -> None:
    """Fills the gradient of maps of which `_start_of` was read; the rest of it is zero."""
    start = gradient.flatten(1)
    rest = grad_maps.shape[1:].numel() - start.shape[1]
    grad_maps.copy_(F.pad(start, (0, rest)).view(grad_maps.shape))
