"""Focal losses by mmcv's names (arXiv 1708.02002).

The formulas are those of mmcv 2.1.0's ops/csrc/common/cuda/{sigmoid,softmax}_focal_loss_cuda_kernel
(mmcv itself has no CPU kernel). The functions fill the buffers that mmcv.ops allocates.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import widened


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of each class's own sigmoid.

    Logarithms are taken of the logits, so that a loss stays exact where mmcv's kernel runs into
    the smallest float32 (logits beyond about 17).

    Args:
        input: [N, C] logits.
        target: int64 [N], the positive class, or C for background.
        weight: [C], a factor per target class (1 for background), or empty.
        output: [N, C], filled.
        gamma: focusing exponent.
        alpha: weight of positives; negatives have 1 - alpha.
    """
    logit, class_weight = widened(input, weight)
    p, log_p = logit.sigmoid(), F.logsigmoid(logit)
    q, log_q = (-logit).sigmoid(), F.logsigmoid(-logit)  # of the negative class, 1 - p
    loss = torch.where(
        _is_target_class(logit, target),
        -alpha * q**gamma * log_p,
        -(1 - alpha) * p**gamma * log_q,
    )
    output.copy_(loss * _weight_of_target(class_weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of `sigmoid_focal_loss_forward`'s output with respect to its input.

    Args:
        grad_input: [N, C], filled.

    The other arguments are those of `sigmoid_focal_loss_forward`.
    """
    logit, class_weight = widened(input, weight)
    p, log_p = logit.sigmoid(), F.logsigmoid(logit)
    q, log_q = (-logit).sigmoid(), F.logsigmoid(-logit)
    gradient = torch.where(
        _is_target_class(logit, target),
        -alpha * q**gamma * (q - gamma * p * log_p),
        -(1 - alpha) * p**gamma * (gamma * q * log_q - p),
    )
    grad_input.copy_(gradient * _weight_of_target(class_weight, target)[:, None])


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of the target class's softmax.

    Args:
        softmax: [N, C] probabilities.
        target: int64 [N], the class, or negative for an example without loss.
        weight: [C], a factor per target class, or empty.
        output: [N], filled.
        gamma: focusing exponent.
        alpha: factor of every loss.
    """
    softmax, class_weight = widened(softmax, weight)
    p = _probability_of_target(softmax, target)
    loss = -alpha * (1 - p) ** gamma * _log(p) * _weight_of_target(class_weight, target)
    output.copy_(loss.masked_fill(target < 0, 0))


def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Derivative of `softmax_focal_loss_forward`'s output with respect to the softmax's logits.

    Args:
        buff: [N], filled with the derivative with respect to the target's log-probability.
        grad_input: [N, C], filled.

    The other arguments are those of `softmax_focal_loss_forward`.
    """
    softmax, class_weight = widened(softmax, weight)
    p = _probability_of_target(softmax, target)
    # A certain example has q = 0, where gamma < 1 would give an infinite power times log(1) = 0.
    q = (1 - p).clamp(min=torch.finfo(p.dtype).tiny)
    derivative = alpha * (gamma * q ** (gamma - 1) * p * _log(p) - q**gamma)
    derivative = derivative * _weight_of_target(class_weight, target)
    derivative = derivative.masked_fill(target < 0, 0)
    buff.copy_(derivative)
    grad_input.copy_(derivative[:, None] * (_is_target_class(softmax, target).to(p) - softmax))


def _is_target_class(per_class: Tensor, target: Tensor) -> Tensor:
    """Boolean [N, C], true at each example's target class."""
    return target[:, None] == torch.arange(per_class.shape[1], device=target.device)


def _probability_of_target(softmax: Tensor, target: Tensor) -> Tensor:
    """[N], any value where the target is negative."""
    return softmax.gather(1, target.clamp(min=0)[:, None]).squeeze(1)


def _weight_of_target(weight: Tensor, target: Tensor) -> Tensor:
    """[N], 1 where the target is none of the C classes or there are no weights."""
    if weight.numel() == 0:
        return weight.new_ones(len(target))
    is_class = (target >= 0) & (target < len(weight))
    return torch.where(is_class, weight[target.clamp(0, len(weight) - 1)], weight.new_ones(()))


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
