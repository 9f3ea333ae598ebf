"""What examples, routing weights and experts must have in common."""

import torch
from torch import Tensor

HALF_TYPES = (torch.bfloat16, torch.float16)


def check_operands(
    x: Tensor, routing: Tensor, weight: Tensor, autocast: torch.dtype | None
) -> None:
    """Raises an error unless devices and types fit.

    Args:
        x, routing, weight: of any shapes.
        autocast: what it makes of x, and so of the others; None leaves them alone.

    Raises:
        ValueError: they are on several devices.
        TypeError: outside autocast, routing is not of x's type, or weight neither of x's nor of
            half precision.
    """
    if not routing.device == weight.device == x.device:
        raise ValueError(
            f'x, routing and weight must be on one device, '
            f'got {x.device}, {routing.device} and {weight.device}'
        )
    if not routing.is_floating_point():
        raise TypeError(f'routing must be floating point, got {routing.dtype}')
    if autocast:
        return
    if routing.dtype != x.dtype:
        raise TypeError(f'routing is {routing.dtype}, x {x.dtype}: they must agree')
    if weight.dtype != x.dtype and weight.dtype not in HALF_TYPES:
        raise TypeError(
            f'weight is {weight.dtype}, x {x.dtype}: they must agree, '
            f'or only weight be in half precision'
        )
