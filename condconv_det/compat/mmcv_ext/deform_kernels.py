"""torchvision's deformable convolution, both ways, with mmcv's slopes at the border."""

from typing import NamedTuple

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import widened


class Geometry(NamedTuple):
    """A convolution's hyper-parameters in the order of torchvision's operators."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    deform_groups: int


class Gradients(NamedTuple):
    """Gradients in the order in which torchvision's operator returns them."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


def convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """[B, Cout, H', W'], in float32 or wider."""
    input, weight, offset = widened(input, weight, offset)
    return torch.ops.torchvision.deform_conv2d(
        input,
        weight,
        offset,
        _mask_argument(mask, input),
        weight.new_zeros(len(weight)) if bias is None else bias.to(weight.dtype),
        *geometry,
        mask is not None,
    )


def gradients_of(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
) -> Gradients:
    """All gradients of `convolve`, in float32 or wider."""
    grad_output, input, weight, offset = widened(grad_output, input, weight, offset)
    gradients = Gradients(
        *torch.ops.torchvision._deform_conv2d_backward(
            grad_output,
            input,
            weight,
            offset,
            _mask_argument(mask, input),
            weight.new_zeros(len(weight)),
            *geometry,
            mask is not None,
        )
    )
    outside = _samples_outside(offset, weight.shape[2:], input.shape[2:], geometry)
    grad_offset = gradients.offset.view(*outside.shape[:4], 2, *outside.shape[4:])
    grad_offset.masked_fill_(outside.unsqueeze(4), 0)
    return gradients


def _mask_argument(mask: Tensor | None, input: Tensor) -> Tensor:
    """The mask in input's dtype; for none, the placeholder that torchvision's operators want."""
    return input.new_zeros(len(input), 1) if mask is None else mask.to(input.dtype)


def _samples_outside(
    offset: Tensor, kernel_size: torch.Size, image_size: torch.Size, geometry: Geometry
) -> Tensor:
    """Boolean [B, deform_groups, kh, kw, H', W'], true where a sample touches no pixel.

    torchvision gives a sample at exactly -1 the slope of its right side; mmcv gives it none. The
    case is no rare one: an offset branch starts at zero, and padding 1 puts samples there.
    """
    batch, _, *output_size = offset.shape
    shifts = offset.reshape(batch, geometry.deform_groups, *kernel_size, 2, *output_size)
    outside = None
    for axis in range(2):
        stride, pad, dilation = geometry[axis], geometry[2 + axis], geometry[4 + axis]
        taps = torch.arange(kernel_size[axis], device=offset.device) * dilation
        starts = torch.arange(output_size[axis], device=offset.device) * stride - pad
        kernel_axis, output_axis = [1, 1, 1, 1], [1, 1, 1, 1]  # of kh, kw, H', W'
        kernel_axis[axis] = output_axis[2 + axis] = -1
        place = shifts[:, :, :, :, axis] + (taps.view(kernel_axis) + starts.view(output_axis))
        off_axis = (place <= -1) | (place >= image_size[axis])
        outside = off_axis if outside is None else outside | off_axis
    return outside
