"""Linear layer with one matrix per example, mixed from experts.

Paper: CondConv (https://arxiv.org/abs/1904.04971), section 4.1, where classifiers are routed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .tracing import is_exporting


def cond_linear(x: Tensor, routing: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiplies each example with its own routing-weighted sum of the experts' matrices.

    A batch of one mixes one matrix, as a convolution does. In larger batches the experts' outputs
    are mixed: the same sum, with no `[B, Cout, Cin]` tensor.

    Args:
        x: [B, Cin]; B may be 0.
        routing: [B, E], any real weights.
        weight: [E, Cout, Cin], one matrix per expert, of routing's type or a half-precision
            one.
        bias: [Cout], one for all experts.

    Returns:
        [B, Cout].

    Raises:
        ValueError: a shape does not fit; the message names both.
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
    weight = weight.to(routing.dtype)
    if not is_exporting() and x.shape[0] == 1:
        return F.linear(x, torch.tensordot(routing[0], weight, dims=1), bias)
    outputs = F.linear(x, weight.flatten(0, 1)).unflatten(1, (experts, out_channels))
    # the type is said, since autocast would have a sum in float32
    y = (routing.unsqueeze(-1).to(outputs.dtype) * outputs).sum(1, dtype=outputs.dtype)
    return y if bias is None else y + bias.to(y.dtype)
