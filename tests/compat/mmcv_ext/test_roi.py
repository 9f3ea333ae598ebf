"""RoI align and RoI pool against loops over bins, with autograd's gradients in float64."""

import itertools
import math

import pytest
import torch
import torchvision
from mmcv_operators import needs_ours, ops
from torch import Tensor

pytestmark = needs_ours

SIZE = (3, 4)  # bins
SCALE = 0.5
# image index, x1, y1, x2, y2: ordinary, across the border, outside, without area, tiny
ROIS = [
    [0, 2.3, 3.1, 14.2, 17.9],
    [1, -6.7, 5.2, 9.4, 30.6],
    [1, 40.1, 41.2, 55.3, 60.4],
    [0, 7.3, 6.1, 7.3, 6.1],
    [1, 3.37, 8.21, 4.02, 9.13],
]


@pytest.fixture
def image() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 11, 9, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def rois() -> Tensor:
    return torch.tensor(ROIS, dtype=torch.float64)


def sample(plane: Tensor, y: float, x: float) -> Tensor:
    """[C] of plane [C, H, W]; as detectron2's RoI align reads a place."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(len(plane))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[:, top, left] * (left + 1 - x) + plane[:, top, right] * (x - left)
    lower = plane[:, bottom, left] * (left + 1 - x) + plane[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def loop_roi_align(image: Tensor, rois: Tensor, ratio: int, mode: str, aligned: bool) -> Tensor:
    output = []
    for index, *corners in rois.tolist():
        x1, y1, x2, y2 = (corner * SCALE - (0.5 if aligned else 0) for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        bin_h, bin_w = height / SIZE[0], width / SIZE[1]
        grid_h, grid_w = (ratio, ratio) if ratio else (math.ceil(bin_h), math.ceil(bin_w))
        for row, column in itertools.product(*map(range, SIZE)):
            samples = [
                sample(
                    image[int(index)],
                    y1 + bin_h * (row + (i + 0.5) / grid_h),
                    x1 + bin_w * (column + (j + 0.5) / grid_w),
                )
                for i, j in itertools.product(range(grid_h), range(grid_w))
            ]
            if samples:
                stack = torch.stack(samples)
                output.append(stack.mean(0) if mode == 'avg' else stack.max(0).values)
            else:
                output.append(image.new_full((image.shape[1],), 0 if mode == 'avg' else -1e4))
    return torch.stack(output).view(len(rois), *SIZE, -1).permute(0, 3, 1, 2)


def loop_roi_pool(image: Tensor, rois: Tensor) -> Tensor:
    output = []
    for index, x1, y1, x2, y2 in rois.tolist():
        left, top = x1 * SCALE, y1 * SCALE
        bin_w = ((x2 + 1) * SCALE - left) / SIZE[1]
        bin_h = ((y2 + 1) * SCALE - top) / SIZE[0]
        for row, column in itertools.product(*map(range, SIZE)):
            first_y, last_y = math.floor(top + row * bin_h), math.ceil(top + (row + 1) * bin_h)
            first_x = math.floor(left + column * bin_w)
            last_x = math.ceil(left + (column + 1) * bin_w)
            pixels = image[int(index), :, max(first_y, 0) : max(last_y, 0)]
            pixels = pixels[:, :, max(first_x, 0) : max(last_x, 0)].flatten(1)
            no_pixel = pixels.shape[1] == 0 or bin_w <= 0 or bin_h <= 0
            output.append(pixels.sum(1) * 0 if no_pixel else pixels.max(1).values)
    return torch.stack(output).view(len(rois), *SIZE, -1).permute(0, 3, 1, 2)


def assert_same_with_gradients(found: Tensor, expected: Tensor, image: Tensor) -> None:
    torch.testing.assert_close(found, expected)
    grad_output = torch.randn_like(expected)
    (found_grad,) = torch.autograd.grad(found, image, grad_output)
    (expected_grad,) = torch.autograd.grad(expected, image, grad_output)
    torch.testing.assert_close(found_grad, expected_grad)
    assert expected_grad.abs().sum() > 0


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2, 3])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_equals_loop(image, rois, mode, ratio, aligned):
    found = ops.RoIAlign(SIZE, SCALE, ratio, mode, aligned)(image, rois)
    assert_same_with_gradients(found, loop_roi_align(image, rois, ratio, mode, aligned), image)


def test_roi_pool_equals_loop(image, rois):
    found = ops.RoIPool(SIZE, SCALE)(image, rois)
    assert_same_with_gradients(found, loop_roi_pool(image, rois), image)


def test_roi_pool_equals_torchvision_on_whole_pixels(image):
    rois = torch.tensor([[0, 1, 2, 6, 9], [1, 0, 0, 8, 10], [1, 5, 4, 12, 15]]).double()
    found = ops.RoIPool(SIZE, 1.0)(image, rois)
    assert_same_with_gradients(found, torchvision.ops.roi_pool(image, rois, SIZE, 1.0), image)


def test_roi_pool_of_a_region_that_ends_before_it_starts_is_zero(image):
    rois = torch.tensor([[0, 8, 8, 2, 2], [0, 7, 2, 6, 9], [1, 2, 7, 9, 5.8]], dtype=torch.float64)
    output = ops.RoIPool(SIZE, SCALE)(image, rois)
    assert not output.any()
    output.sum().backward()
    assert not image.grad.any()


POOLS = {
    'align avg': ops.RoIAlign(SIZE, SCALE, 0, 'avg'),
    'align max': ops.RoIAlign(SIZE, SCALE, 0, 'max'),
    'pool': ops.RoIPool(SIZE, SCALE),
}


@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
def test_no_regions(image, pool):
    output = pool(image, torch.zeros(0, 5, dtype=torch.float64))
    assert output.shape == (0, 3, *SIZE)
    output.sum().backward()
    assert not image.grad.any()


@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded(image, rois, pool, dtype):
    low = image.detach().to(dtype).requires_grad_()
    high = low.detach().float().requires_grad_()
    rois = rois.to(dtype)
    output, expected = pool(low, rois), pool(high, rois.float())
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype))
    # Four maxima of one pixel add up in low precision, and places are stored in it.
    output.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(low.grad.float(), high.grad, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
def test_memory_layout_does_not_matter(image, rois, pool):
    plain = image.detach()
    channels_last = plain.to(memory_format=torch.channels_last)
    sliced = torch.cat((plain, plain), dim=1)[:, 3:]
    for other in (channels_last, sliced):
        torch.testing.assert_close(pool(other, rois), pool(plain, rois))
