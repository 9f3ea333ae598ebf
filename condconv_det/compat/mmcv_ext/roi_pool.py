"""RoI pool by mmcv's names; follows mmcv 2.1.0's ops/csrc/common/cuda/roi_pool_cuda_kernel.cuh.

The functions fill the buffers that mmcv.ops allocates. mmcv itself has no CPU kernel.
"""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import widened

NO_PIXEL = -1


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Maximum of each region's bins (Fast R-CNN, arXiv 1504.08083); 0 in bins without a pixel.

    Args:
        input: [B, C, H, W].
        rois: [K, 5], image index, x1, y1, x2, y2 in pixels of the image, both ends included.
        output: [K, C, pooled_height, pooled_width], filled.
        argmax: int32, like output, filled with y * W + x of each maximum, or -1.
        pooled_height: bins per region, downwards.
        pooled_width: bins per region, across.
        spatial_scale: pixels of input per pixel of the image.
    """
    input, rois = widened(input, rois)
    height, width = input.shape[2:]
    # torchvision rounds a region to whole pixels before it divides it, mmcv divides the region as
    # it is. So bins are laid out mmcv's way, and each goes to torchvision as a region of one bin.
    top, bottom = _bin_edges(rois[:, 2], rois[:, 4], spatial_scale, pooled_height, height)
    left, right = _bin_edges(rois[:, 1], rois[:, 3], spatial_scale, pooled_width, width)
    shape = (len(rois), pooled_height, pooled_width)
    bins = torch.stack(
        [
            rois[:, 0, None, None].expand(shape),
            left[:, None, :].expand(shape),
            top[:, :, None].expand(shape),
            right[:, None, :].expand(shape) - 1,
            bottom[:, :, None].expand(shape) - 1,
        ],
        dim=-1,
    )
    maximum, pixel = torch.ops.torchvision.roi_pool(input, bins.view(-1, 5), 1.0, 1, 1)
    # torchvision widens a bin without pixels to one pixel.
    empty = (bottom <= top)[:, :, None] | (right <= left)[:, None, :]
    empty = empty.view(-1, 1, 1, 1)
    for buffer, filled in (
        (output, maximum.masked_fill(empty, 0)),
        (argmax, pixel.masked_fill(empty, NO_PIXEL)),
    ):
        buffer.copy_(filled.view(*shape, input.shape[1]).permute(0, 3, 1, 2))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of `roi_pool_forward` with respect to its input.

    Args:
        grad_output: [K, C, pooled_height, pooled_width].
        grad_input: [B, C, H, W], filled.

    The other arguments are those of `roi_pool_forward`.
    """
    grad_output, rois = widened(grad_output, rois)
    gradient = torch.ops.torchvision._roi_pool_backward(
        grad_output, rois, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
    )
    grad_input.copy_(gradient)


def _bin_edges(
    first: Tensor, last: Tensor, spatial_scale: float, bins: int, length: int
) -> tuple[Tensor, Tensor]:
    """First pixel of each bin, and the first one past it, on one axis.

    Args:
        first: [K], a region's first pixel, in the image's pixels.
        last: [K], its last pixel.
        spatial_scale: pixels of input per pixel of the image.
        bins: number of bins.
        length: of the input, in its pixels.

    Returns:
        Two of [K, bins], whole numbers from 0 to length. A region that ends before it starts has
        bins without pixels only.
    """
    start = (first * spatial_scale)[:, None]
    size = ((last + 1) * spatial_scale)[:, None] - start
    number = torch.arange(bins, device=first.device)
    low = (number * (size / bins) + start).floor().clamp(0, length)
    high = ((number + 1) * (size / bins) + start).ceil().clamp(0, length)
    return low, torch.where(size > 0, high, low)
