"""Means of whole maps as ONNX's GlobalAveragePool.

ONNX Runtime computes it in the layout of its convolutions; for `ReduceMean` it lays the map out
anew.
"""

from collections.abc import Sequence
from typing import Any

import torch


def translations() -> dict[Any, Any]:
    """`custom_translation_table` of `torch.onnx.export`."""
    from onnxscript import opset18 as op

    def translate(x, dim: Sequence[int], keepdim: bool = False, dtype: int | None = None):
        rank = len(x.shape)
        if rank == 4 and {axis % rank for axis in dim} == {2, 3}:
            mean = op.GlobalAveragePool(x)
            mean = mean if keepdim else op.Flatten(mean)
        else:
            mean = op.ReduceMean(x, op.Constant(value_ints=list(dim)), keepdims=keepdim)
        return mean if dtype is None else op.Cast(mean, to=dtype)

    return {torch.ops.aten.mean.dim: translate}
