"""Deformable convolution against `grid_sample` in float64, with autograd's gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from mmcv_operators import ext, needs_ours, ops
from torch import Tensor

pytestmark = needs_ours

# stride, padding, dilation, groups, deform_groups
GEOMETRIES = [
    (1, 1, 1, 1, 1),
    (2, 1, 1, 1, 2),
    (1, 2, 2, 2, 1),
    ((2, 1), (0, 1), (1, 2), 2, 4),
]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def tensors(geometry: tuple, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    torch.manual_seed(0)
    stride, padding, dilation = map(pair, geometry[:3])
    groups, deform_groups = geometry[3:]
    image, kernel_size = (9, 8), (3, 2)
    out = [
        (image[a] + 2 * padding[a] - dilation[a] * (kernel_size[a] - 1) - 1) // stride[a] + 1
        for a in range(2)
    ]
    taps = deform_groups * kernel_size[0] * kernel_size[1]
    shapes = {
        'input': (3, 4, *image),
        'offset': (3, 2 * taps, *out),
        'mask': (3, taps, *out),
        'weight': (6, 4 // groups, *kernel_size),
        'bias': (6,),
    }
    return {n: torch.randn(s, dtype=dtype).requires_grad_() for n, s in shapes.items()}


def plain_deform_conv(
    input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *geometry
) -> Tensor:
    stride, padding, dilation = map(pair, geometry[:3])
    groups, deform_groups = geometry[3:]
    batch, channels, *size = input.shape
    kernel_h, kernel_w = weight.shape[2:]
    out = offset.shape[2:]
    shifts = offset.view(batch, deform_groups, kernel_h, kernel_w, 2, *out)
    masks = mask.view(batch, deform_groups, 1, kernel_h, kernel_w, *out)
    images = input.view(batch * deform_groups, channels // deform_groups, *size)
    output = bias[:, None, None]
    for i in range(kernel_h):
        for j in range(kernel_w):
            places = []
            for axis, tap in enumerate((i, j)):
                start = torch.arange(out[axis], dtype=input.dtype) * stride[axis] - padding[axis]
                start = start.view([-1, 1] if axis == 0 else [1, -1]) + tap * dilation[axis]
                place = start + shifts[:, :, i, j, axis]
                places.append(place.flatten(0, 1) / (size[axis] - 1) * 2 - 1)
            grid = torch.stack(places[::-1], dim=-1)
            sampled = F.grid_sample(images, grid, align_corners=True)
            sampled = sampled.view(batch, deform_groups, -1, *out) * masks[:, :, :, i, j]
            kernel = weight[:, :, i : i + 1, j : j + 1]
            output = output + F.conv2d(sampled.flatten(1, 2), kernel, groups=groups)
    return output


def assert_same_with_gradients(found: Tensor, expected: Tensor, leaves: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected)
    grad_output = torch.randn_like(expected)
    found_grads = torch.autograd.grad(found, leaves.values(), grad_output)
    expected_grads = torch.autograd.grad(expected, leaves.values(), grad_output)
    for name, a, b in zip(leaves, found_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, msg=lambda message, name=name: f'{name}: {message}')


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_modulated_deform_conv_equals_plain_formula(geometry):
    leaves = tensors(geometry)
    found = ops.modulated_deform_conv2d(*leaves.values(), *geometry)
    assert_same_with_gradients(found, plain_deform_conv(*leaves.values(), *geometry), leaves)


def start_of_each_image(maps: Tensor, output_size: tuple[int, int]) -> Tensor:
    """What mmcv's kernels read: an image's buffer, as if it had the output's size."""
    _, channels, height, width = maps.shape
    c, y, x = (torch.arange(n) for n in (channels, *output_size))
    place = (c[:, None, None] * output_size[0] + y[:, None]) * output_size[1] + x
    return maps[:, place // (height * width), place // width % height, place % width]


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_of_maps_larger_than_the_output_the_start_is_read_and_gets_the_gradient(
    geometry, memory_format
):
    leaves = tensors(geometry)
    output_size = leaves['offset'].shape[2:]
    for name in ('offset', 'mask'):
        larger = torch.randn(*leaves[name].shape[:2], output_size[0] * 2 - 1, output_size[1] + 3)
        leaves[name] = larger.double().to(memory_format=memory_format).requires_grad_()
    found = ops.modulated_deform_conv2d(*leaves.values(), *geometry)
    read = {n: start_of_each_image(leaves[n], output_size) for n in ('offset', 'mask')}
    expected = plain_deform_conv(*{**leaves, **read}.values(), *geometry)
    assert_same_with_gradients(found, expected, leaves)


@pytest.mark.parametrize('name', ['offset', 'mask'])
def test_maps_smaller_than_the_output_are_named(name):
    leaves = tensors(GEOMETRIES[0])
    leaves[name] = leaves[name][..., 1:]
    with pytest.raises(ValueError, match=f'{name} must have at least the 9x9 .*, got 9x8'):
        ops.modulated_deform_conv2d(*leaves.values(), *GEOMETRIES[0])


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_deform_conv_equals_plain_formula(geometry):
    leaves = tensors(geometry)
    mask, bias = torch.ones_like(leaves.pop('mask')), torch.zeros_like(leaves.pop('bias'))
    found = ops.deform_conv2d(*leaves.values(), *geometry)
    expected = plain_deform_conv(
        leaves['input'], leaves['offset'], mask, leaves['weight'], bias, *geometry
    )
    assert_same_with_gradients(found, expected, leaves)


def test_kernel_gradient_alone_equals_the_one_computed_with_the_others():
    leaves = tensors(GEOMETRIES[0])
    input, offset, weight = (leaves[name] for name in ('input', 'offset', 'weight'))
    ops.deform_conv2d(input, offset, weight, 1, 1).square().sum().backward()
    together = weight.grad.clone()
    weight.grad = None
    ops.deform_conv2d(input.detach(), offset.detach(), weight, 1, 1).square().sum().backward()
    torch.testing.assert_close(weight.grad, together)


@pytest.mark.parametrize('in_place', [False, True])
def test_kernel_gradient_of_another_backward_pass_is_not_reused(in_place):
    leaves = {n: t.detach() for n, t in tensors(GEOMETRIES[0]).items()}
    input, offset, weight = (leaves[name] for name in ('input', 'offset', 'weight'))
    taps = {'kW': 2, 'kH': 3, 'dW': 1, 'dH': 1, 'padW': 1, 'padH': 1}
    rest = {'dilationW': 1, 'dilationH': 1, 'group': 1, 'deformable_group': 1, 'im2col_step': 3}
    scratch = input.new_empty(0)
    grad_output = torch.randn(3, 6, *offset.shape[2:]).double()

    def kernel_gradient(grad_output: Tensor, columns: Tensor) -> Tensor:
        gradient = torch.zeros_like(weight)
        ext.deform_conv_backward_parameters(
            input, offset, grad_output, gradient, columns, scratch, scale=1, **taps, **rest
        )
        return gradient

    expected = 2 * kernel_gradient(grad_output, input.new_empty(0))
    columns = input.new_empty(0)
    outputs = torch.zeros_like(input), torch.zeros_like(offset)
    ext.deform_conv_backward_input(
        input, offset, grad_output, *outputs, weight, columns, **taps, **rest
    )
    doubled = grad_output.mul_(2) if in_place else grad_output * 2
    torch.testing.assert_close(kernel_gradient(doubled, columns), expected)


def test_one_backward_pass_computes_the_kernel_gradient_once(monkeypatch):
    module = importlib.import_module('condconv_det.compat.mmcv_ext.deform_conv')
    calls = []
    gradients_of = module.gradients_of
    monkeypatch.setattr(
        module, 'gradients_of', lambda *args: calls.append(args) or gradients_of(*args)
    )
    leaves = tensors(GEOMETRIES[0])
    ops.deform_conv2d(*(leaves[n] for n in ('input', 'offset', 'weight')), 1, 1).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize('modulated', [False, True])
def test_offset_gradient_of_samples_that_touch_no_pixel_is_zero(modulated):
    """An offset branch that starts at zero, with padding 1: mmcv gives the outer ring no slope."""
    torch.manual_seed(0)
    input, weight = torch.randn(1, 2, 5, 6).double(), torch.randn(3, 2, 3, 3).double()
    mask = torch.rand(1, 9, 5, 6).double()

    def convolve(offset: Tensor) -> Tensor:
        if modulated:
            return ops.modulated_deform_conv2d(input, offset, mask, weight, None, 1, 1).sum()
        return ops.deform_conv2d(input, offset, weight, 1, 1).sum()

    offset = torch.zeros(1, 18, 5, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(convolve(offset), offset)
    y = torch.arange(5).view(-1, 1) - 1 + torch.arange(3).view(-1, 1, 1)
    x = torch.arange(6) - 1 + torch.arange(3).view(-1, 1, 1)
    outside = ((y < 0) | (y > 4))[:, None] | ((x < 0) | (x > 5))[None]  # [kh, kw, H', W']
    outside = outside.reshape(9, 1, 5, 6).expand(9, 2, 5, 6).reshape(18, 5, 6)
    assert not gradient[0][outside].any()

    # Inside, the slope to the right, as floor() reads a whole place.
    step = 1e-6
    base = convolve(offset.detach())
    for place in (~outside).nonzero()[::23].tolist():
        moved = offset.detach().clone()
        moved[(0, *place)] = step
        slope = (convolve(moved) - base) / step
        torch.testing.assert_close(gradient[(0, *place)], slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('modulated', [False, True])
def test_half_precision_is_float32_rounded(dtype, modulated):
    low = {n: t.detach().to(dtype) for n, t in tensors(GEOMETRIES[0]).items()}
    if not modulated:
        del low['mask'], low['bias']
    high = {n: t.float() for n, t in low.items()}
    function = ops.modulated_deform_conv2d if modulated else ops.deform_conv2d
    results = []
    for leaves in (low, high):
        output = function(*(t.requires_grad_() for t in leaves.values()), *GEOMETRIES[0])
        output.sum().backward()
        results.append([output, *(t.grad for t in leaves.values())])
    for a, b in zip(*results, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype))


def test_layers_of_a_detector_train():
    torch.manual_seed(0)
    for layer in (ops.DeformConv2dPack, ops.ModulatedDeformConv2dPack):
        module = layer(4, 6, 3, padding=1)
        image = torch.randn(2, 4, 7, 7)
        with torch.autocast('cpu', torch.bfloat16):
            module(image).float().square().mean().backward()
        assert module.conv_offset.weight.grad.abs().sum() > 0
        assert module.weight.grad.isfinite().all()
