"""Arithmetic: tensors in, tensors out."""

from .cond_conv2d import cond_conv2d, mix_kernels
from .padding import same_padding

__all__ = ['cond_conv2d', 'mix_kernels', 'same_padding']
