"""Linear layer with one matrix per example, mixed from experts.

Paper: CondConv (https://arxiv.org/abs/1904.04971), section 4.1, where classifiers are routed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .autocast import autocast_dtype
from .operands import check_operands
from .tracing import is_exporting


def cond_linear(x: Tensor, routing: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiplies each example with its own routing-weighted sum of the experts' matrices.

    A batch of one mixes one matrix, as a convolution does. In larger batches the experts' outputs
    are mixed: the same sum, with no `[B, Cout, Cin]` tensor.

    Args:
        x: [B, Cin]; B may be 0.
        routing: [B, E], any real weights.
        weight: [E, Cout, Cin], one matrix per expert; of half precision, it is mixed in routing's.
        bias: [Cout], one for all experts.

    Returns:
        [B, Cout].

    Raises:
        ValueError: a shape or device does not fit; the message names both.
        TypeError: outside autocast, routing is not of x's type, or weight neither of x's nor of
            half precision.
    """
    if weight.dim() != 3:
        raise ValueError(f'weight must be [E, Cout, Cin], got shape {tuple(weight.shape)}')
    experts, out_channels, in_channels = weight.shape
    if x.dim() != 2 or x.shape[1] != in_channels:
        raise ValueError(f'x must be [B, Cin] = [B, {in_channels}], got shape {tuple(x.shape)}')
    if routing.shape != (x.shape[0], experts):
        raise ValueError(
            f'routing must be [B, E] = [{x.shape[0]}, {experts}], got shape {tuple(routing.shape)}'
        )
    check_operands(x, routing, weight, autocast_dtype(x))
    weight = weight.to(routing.dtype)
    bias = None if bias is None else bias.to(routing.dtype)
    if not is_exporting() and x.shape[0] == 1:
        return F.linear(x, torch.tensordot(routing[0], weight, dims=1), bias)
    outputs = F.linear(x, weight.flatten(0, 1)).unflatten(1, (experts, out_channels))
    # the type is said, since autocast would have a sum in float32
    y = (routing.unsqueeze(-1).to(outputs.dtype) * outputs).sum(1, dtype=outputs.dtype)
    return y if bias is None else y + bias.to(y.dtype)
