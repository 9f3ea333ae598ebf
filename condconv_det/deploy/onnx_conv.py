"""A routed convolution of any batch as one operation, until it is translated into ONNX.

Tap by tap it is a dozen operations for each tap, and PyTorch's exporter traces, decomposes and
retypes all of them before it translates them. Needs torch >= 2.4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library

from condconv_det.ops.export_conv import tap_by_tap
from condconv_det.ops.kernels import out_size


def convolve_in_onnx(x: Tensor, kernel: Tensor, stride: list[int], dilation: list[int]) -> Tensor:
    """`tap_by_tap`."""
    size = out_size(x.shape[2:], kernel.shape[1:3], stride, (0, 0), dilation)
    return _convolve(x, kernel, stride, dilation, [*kernel.shape[1:], *size])


@library.custom_op('condconv_det::tap_by_tap', mutates_args=())
def _convolve(
    x: Tensor, kernel: Tensor, stride: list[int], dilation: list[int], shape: list[int]
) -> Tensor:
    """Args: shape: (kh, kw, G, Cout/G, Cin/G, H', W'), which the translation has to know."""
    return tap_by_tap(x, kernel, stride, dilation)


@_convolve.register_fake
def _(
    x: Tensor, kernel: Tensor, stride: list[int], dilation: list[int], shape: list[int]
) -> Tensor:
    _, _, groups, channels, _, *size = shape
    return x.new_empty(x.shape[0], groups * channels, *size)


def translations() -> dict[Any, Any]:
    """`custom_translation_table` of `torch.onnx.export`."""
    from onnxscript import opset18 as op

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=values)

    def translate(x, kernel, stride: Sequence[int], dilation: Sequence[int], shape: Sequence[int]):
        rows, columns, groups, channels, depth, height, width = shape
        flat = ints(0, groups, depth, height * width)
        y = None
        for row in range(rows):
            of_row = op.Gather(kernel, op.Constant(value_int=row), axis=1)
            for column in range(columns):
                starts = row * dilation[0], column * dilation[1]
                ends = (
                    starts[0] + stride[0] * (height - 1) + 1,
                    starts[1] + stride[1] * (width - 1) + 1,
                )
                shifted = x
                if rows * columns > 1 or list(stride) != [1, 1]:
                    shifted = op.Slice(x, ints(*starts), ints(*ends), ints(2, 3), ints(*stride))
                tap = op.Gather(of_row, op.Constant(value_int=column), axis=1)
                product = op.Mul if depth == 1 else op.MatMul
                term = product(tap, op.Reshape(shifted, flat))
                y = term if y is None else op.Add(y, term)
        return op.Reshape(y, ints(0, groups * channels, height, width))

    return {torch.ops.condconv_det.tap_by_tap.default: translate}
