"""TensorFlow's "same" padding, which PyTorch has only at stride 1."""

import torch


def same_padding(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int, int, int]:
    """Zeros that TensorFlow's "same" adds, so that a side of n becomes ceil(n / stride).

    Args:
        size: height and width of the input.
        kernel_size, stride, dilation: of the convolution, (vertical, horizontal).

    Returns:
        (left, right, top, bottom), the order of `F.pad`; an odd zero goes right and below.
    """
    top, bottom = _same_padding_1d(size[0], kernel_size[0], stride[0], dilation[0])
    left, right = _same_padding_1d(size[1], kernel_size[1], stride[1], dilation[1])
    return left, right, top, bottom


def _same_padding_1d(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = (kernel - 1) * dilation
    total = reach - (size - 1) % stride
    if reach < stride - 1:
        # Not `max`: torch.compile would guard on its outcome for every size.
        total = torch.sym_max(total, 0)
    return total // 2, total - total // 2
