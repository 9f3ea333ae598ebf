"""RoI align by mmcv's names; follows mmcv 2.1.0's ops/csrc/pytorch/cpu/roi_align.cpp.

Average pooling is torchvision's kernel. Maximum pooling, which torchvision lacks, is written in
tensor operations. The functions fill the buffers that mmcv.ops allocates.
"""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import widened

MAX_POOLING = 0

# What mmcv's CPU kernel starts each bin's maximum from, and returns for a bin without samples.
LOWEST_MAXIMUM = -10000.0

# What mmcv stores as the place of the maximum for a bin without samples.
NO_SAMPLE = -1.0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool bilinear samples of each region's bins (Mask R-CNN, arXiv 1703.06870).

    Args:
        input: [B, C, H, W].
        rois: [K, 5], image index, x1, y1, x2, y2 in pixels of the image.
        output: [K, C, aligned_height, aligned_width], filled.
        argmax_y: like output in maximum pooling, filled with the row of each maximum; else unused.
        argmax_x: the column, likewise.
        aligned_height: bins per region, downwards.
        aligned_width: bins per region, across.
        spatial_scale: pixels of input per pixel of the image.
        sampling_ratio: samples per bin and axis; 0 for about one per pixel of input.
        pool_mode: `MAX_POOLING`, or 1 for the average.
        aligned: shift by half a pixel, as detectron2 does.
    """
    input, rois = widened(input, rois)
    if pool_mode != MAX_POOLING:
        pooled = torch.ops.torchvision.roi_align(
            input, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
        output.copy_(pooled)
        return

    shift = 0.5 if aligned else 0.0
    start = rois[:, [2, 1]] * spatial_scale - shift  # [K, 2], y before x
    size = rois[:, [4, 3]] * spatial_scale - shift - start
    if not aligned:
        size = size.clamp(min=1)
    bin_size = size / size.new_tensor([aligned_height, aligned_width])
    grid = torch.full_like(bin_size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil()
    bins = (torch.arange(n, device=rois.device) for n in (aligned_height, aligned_width))
    bin_y, bin_x = (
        start[:, i, None] + n * bin_size[:, i, None] for i, n in enumerate(bins)
    )  # [K, aligned_height], [K, aligned_width]

    image = input.permute(0, 2, 3, 1)  # channels last: one index picks a pixel's channels
    image_index = rois[:, 0].long()
    channels, height, width = input.shape[1:]
    shape = (len(rois), aligned_height, aligned_width, channels)
    maximum = input.new_full(shape, LOWEST_MAXIMUM)
    at_y = input.new_full(shape, NO_SAMPLE)
    at_x = input.new_full(shape, NO_SAMPLE)
    most_y, most_x = grid.amax(0).int().tolist() if len(rois) else (0, 0)
    # One sample of every bin at a time, so that memory does not grow with the number of samples.
    for row in range(most_y):
        for column in range(most_x):
            k = ((row < grid[:, 0]) & (column < grid[:, 1])).nonzero().squeeze(1)
            step = grid.new_tensor([row + 0.5, column + 0.5]) * bin_size[k] / grid[k]
            y = (bin_y[k] + step[:, :1])[:, :, None]  # [k, aligned_height, 1]
            x = (bin_x[k] + step[:, 1:])[:, None, :]  # [k, 1, aligned_width]
            sample = sum(
                weight[..., None] * image[image_index[k, None, None], pixel_y, pixel_x]
                for pixel_y, pixel_x, weight in _neighbours(y, x, height, width)
            )
            better = sample > maximum[k]
            maximum[k] = torch.where(better, sample, maximum[k])
            at_y[k] = torch.where(better, y[..., None], at_y[k])
            at_x[k] = torch.where(better, x[..., None], at_x[k])
    for buffer, filled in ((output, maximum), (argmax_y, at_y), (argmax_x, at_x)):
        buffer.copy_(filled.permute(0, 3, 1, 2))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` with respect to its input.

    Args:
        grad_output: [K, C, aligned_height, aligned_width].
        grad_input: [B, C, H, W], filled.

    The other arguments are those of `roi_align_forward`.
    """
    grad_output, rois = widened(grad_output, rois)
    batch, channels, height, width = grad_input.shape
    if pool_mode != MAX_POOLING:
        gradient = torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            batch,
            channels,
            height,
            width,
            sampling_ratio,
            aligned,
        )
        grad_input.copy_(gradient)
        return

    argmax_y, argmax_x = (argmax.to(grad_output.dtype) for argmax in (argmax_y, argmax_x))
    image_index = rois[:, 0].long().view(-1, 1, 1, 1)
    plane = image_index * channels + torch.arange(channels, device=rois.device).view(-1, 1, 1)
    sampled = argmax_y != NO_SAMPLE
    gradient = grad_output.new_zeros(grad_input.numel())
    for pixel_y, pixel_x, weight in _neighbours(argmax_y, argmax_x, height, width):
        pixel = (plane * height + pixel_y) * width + pixel_x
        gradient.index_add_(0, pixel.flatten(), (grad_output * weight * sampled).flatten())
    grad_input.copy_(gradient.view_as(grad_input))


def _neighbours(
    y: Tensor, x: Tensor, height: int, width: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The four pixels around each place, and their bilinear weights.

    A place up to one pixel outside the image counts as on its border; farther out, weights are 0.

    Args:
        y: rows, of any shape that broadcasts with x.
        x: columns.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Four tuples of int64 row, int64 column and weight of the broadcast shape.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y_low, y_high, y_part = _neighbours_on_axis(y, height)
    x_low, x_high, x_part = _neighbours_on_axis(x, width)
    return [
        (y_low, x_low, (1 - y_part) * (1 - x_part) * inside),
        (y_low, x_high, (1 - y_part) * x_part * inside),
        (y_high, x_low, y_part * (1 - x_part) * inside),
        (y_high, x_high, y_part * x_part * inside),
    ]


def _neighbours_on_axis(place: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper pixel, and the way between them as 0 to 1, of places on one axis."""
    place = place.clamp(0, length - 1)
    low = place.floor()
    return low.long(), (low.long() + 1).clamp(max=length - 1), place - low
