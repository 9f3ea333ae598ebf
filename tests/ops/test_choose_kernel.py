"""Which kernel computes a layer, by its shape."""

import inspect
from abc import ABCMeta
from unittest.mock import patch

import pytest
import torch
from kernel_paths import MODULE

from condconv_det.ops import kernels as kernels_module
from condconv_det.ops.kernels import (
    GroupedConv,
    GroupedPatches,
    Kernel,
    Matmul,
    MixedOutputs,
    MixedProducts,
    OneByOne,
)

ONE, TWO = (1, 1), (2, 2)


SHAPES = pytest.mark.parametrize(
    'x, weight, stride, groups, kernel',
    [
        ((8, 512, 19, 19), (8, 512, 512, 1, 1), ONE, 1, Matmul()),
        ((8, 1024, 10, 10), (8, 1024, 1024, 1, 1), ONE, 1, Matmul(block=192)),
        ((1, 1024, 10, 10), (8, 1024, 1024, 1, 1), ONE, 1, Matmul()),
        ((24, 1024, 38, 38), (8, 1024, 1024, 1, 1), ONE, 1, Matmul()),
        ((8, 512, 19, 19), (8, 512, 1, 3, 3), ONE, 512, GroupedConv(ONE, ONE, ONE, 512)),
        ((8, 64, 38, 38), (8, 64, 64, 3, 3), TWO, 1, GroupedConv(TWO, ONE)),
        ((8, 64, 5, 5), (8, 128, 64, 3, 3), TWO, 1, Matmul(TWO, ONE)),
        ((8, 256, 5, 5), (8, 512, 256, 3, 3), ONE, 1, Matmul(ONE, ONE, block=85)),
        ((24, 512, 5, 5), (8, 512, 512, 3, 3), ONE, 1, Matmul(ONE, ONE, block=48)),
        ((8, 512, 14, 14), (8, 512, 512, 3, 3), ONE, 1, OneByOne(ONE, ONE)),
        ((1, 512, 14, 14), (8, 512, 512, 3, 3), ONE, 1, GroupedConv(ONE, ONE)),
        # few places
        ((2, 64, 2, 2), (8, 128, 64, 3, 3), TWO, 1, MixedProducts(TWO, ONE)),
        ((8, 128, 4, 4), (8, 256, 128, 3, 3), TWO, 1, MixedProducts(TWO, ONE)),
        ((4, 128, 4, 4), (8, 256, 128, 3, 3), TWO, 1, Matmul(TWO, ONE)),
        ((8, 512, 3, 3), (8, 512, 512, 1, 1), ONE, 1, Matmul()),
        ((1, 64, 2, 2), (8, 128, 64, 3, 3), TWO, 1, Matmul(TWO, ONE)),
        # predictors
        ((8, 128, 38, 38), (8, 24, 128, 3, 3), ONE, 1, GroupedConv(ONE, ONE)),
        ((8, 128, 38, 38), (8, 18, 128, 3, 3), ONE, 1, GroupedConv(ONE, ONE, spare=14)),
        ((8, 128, 38, 38), (8, 4, 128, 3, 3), ONE, 1, GroupedConv(ONE, ONE, spare=4)),
        ((8, 512, 4, 4), (8, 36, 512, 3, 3), ONE, 1, Matmul(ONE, ONE)),
        ((1, 128, 38, 38), (8, 18, 128, 3, 3), ONE, 1, GroupedConv(ONE, ONE)),
    ],
)


@SHAPES
def test_shapes_that_reach_each_kernel(x, weight, stride, groups, kernel):
    padding = (weight[3] // 2, weight[4] // 2)
    x, weight = torch.empty(x), torch.empty(1).expand(weight)
    assert MODULE.choose_kernel(x, weight, stride, padding, ONE, groups) == kernel


def test_no_kernel_is_without_a_shape():
    kernels = {
        each
        for each in vars(kernels_module).values()
        if type(each) is ABCMeta and issubclass(each, Kernel) and not inspect.isabstract(each)
    }
    reached = {type(shape[-1]) for shape in SHAPES.args[1]}
    # those where there is a compiler, and off the CPU, below
    assert reached | {GroupedPatches, MixedOutputs} == kernels


@pytest.mark.parametrize(
    'batch, side, dtype, kernel',
    [
        (32, 10, torch.float32, Matmul(ONE, ONE)),
        (32, 10, torch.bfloat16, Matmul(ONE, ONE)),
        (32, 40, torch.float32, GroupedConv(ONE, ONE)),
        (32, 40, torch.bfloat16, Matmul(ONE, ONE)),
        (32, 50, torch.float16, GroupedConv(ONE, ONE)),
        (1, 10, torch.bfloat16, GroupedConv(ONE, ONE)),
        (1, 5, torch.bfloat16, MixedOutputs(ONE, ONE)),
        (32, 5, torch.float32, MixedOutputs(ONE, ONE)),
    ],
)
def test_off_the_cpu_maps_of_few_places_take_all_experts_and_larger_ones_patches(
    batch, side, dtype, kernel
):
    x = torch.empty(batch, 256, side, side, dtype=dtype, device='meta')
    weight = torch.empty(8, 256, 256, 3, 3, dtype=dtype, device='meta')
    assert MODULE.choose_kernel(x, weight, ONE, ONE, ONE, 1) == kernel


def test_a_compiler_meets_no_convolution_whose_groups_are_the_batch():
    with patch.object(MODULE, 'is_compiling', return_value=True):
        dense = MODULE.choose_kernel(
            torch.empty(24, 256, 38, 38), torch.empty(8, 512, 256, 3, 3), ONE, ONE, ONE, 1
        )
        depthwise = MODULE.choose_kernel(
            torch.empty(4, 8, 9, 9), torch.empty(2, 8, 1, 3, 3), ONE, ONE, ONE, 8
        )
        one_image = MODULE.choose_kernel(
            torch.empty(1, 8, 9, 9), torch.empty(2, 8, 1, 3, 3), ONE, ONE, ONE, 8
        )
    assert dense == Matmul(ONE, ONE)
    assert depthwise == GroupedPatches(ONE, ONE, ONE, 8)
    assert one_image == GroupedConv(ONE, ONE, ONE, 8)


def test_ssds_own_layers_run_all_experts_off_the_cpu():
    """10x10 places to 5x5, with TensorFlow's padding put around them before."""
    x, weight = (
        torch.empty(128, 256, 11, 11, device='meta'),
        torch.empty(8, 512, 256, 3, 3, device='meta'),
    )
    assert MODULE.choose_kernel(x, weight, TWO, (0, 0), ONE, 1) == MixedOutputs(TWO)
