"""The precision in which the operators compute."""

from functools import reduce

import torch
from torch import Tensor


def widened(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one common dtype, float32 or wider.

    torchvision's CPU kernels take neither float16 nor bfloat16, and its CUDA kernels no bfloat16;
    torchvision itself computes these operators in float32 under autocast.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return [tensor.to(dtype) for tensor in tensors]
