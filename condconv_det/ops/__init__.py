"""Arithmetic: tensors in, tensors out."""

from .cond_conv2d import cond_conv2d
from .cond_linear import cond_linear
from .export_conv import any_batch_conv2d, single_image_conv2d
from .mixing import mix_kernels
from .padding import same_padding

__all__ = [
    'any_batch_conv2d',
    'cond_conv2d',
    'cond_linear',
    'mix_kernels',
    'same_padding',
    'single_image_conv2d',
]
