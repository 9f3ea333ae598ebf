"""Arithmetic: tensors in, tensors out."""

from .cond_conv2d import cond_conv2d, mix_kernels
from .cond_linear import cond_linear
from .padding import same_padding

__all__ = ['cond_conv2d', 'cond_linear', 'mix_kernels', 'same_padding']
