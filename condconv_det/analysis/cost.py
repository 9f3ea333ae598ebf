"""Parameters and multiply-adds of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from condconv_det.layers import CondConv2d, Router


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Args:
        parameters: of the whole network.
        expert_parameters: those among them that are experts' kernels.
        multiply_adds: of convolutions and matrix products, mixing and routing included; norms,
            activations and pooling are not counted, as in the paper.
        mixing: those that mix kernels from experts, one for each expert parameter.
        routing: those of the routers' linear layers.
    """

    parameters: int
    expert_parameters: int
    multiply_adds: int
    mixing: int
    routing: int


def measure_cost(model: nn.Module, image: Tensor, **forward_kwargs) -> Cost:
    """Counts a network's parameters, and its multiply-adds for one image.

    Args:
        model: any network; it runs once, in eval mode.
        image: [1, C, H, W]; only its shape matters.
        forward_kwargs: go to `model.forward` with the image, such as mmdet's `mode='tensor'`.
    """
    mixing: list[int] = []
    routing: list[int] = []

    def count(layer: CondConv2d | Router, *_) -> None:
        if isinstance(layer, CondConv2d):
            mixing.append(layer.weight.numel())
        else:
            routing.extend(fc.weight.numel() for fc in layer.children())

    routed = [layer for layer in model.modules() if isinstance(layer, CondConv2d | Router)]
    hooks = [layer.register_forward_hook(count) for layer in routed]
    was_training = model.training
    counter = FlopCounterMode(display=False)
    model.eval()
    try:
        with counter, torch.no_grad():
            model(image, **forward_kwargs)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        expert_parameters=sum(
            layer.weight.numel() for layer in routed if isinstance(layer, CondConv2d)
        ),
        # the counter counts a multiplication and an addition as two
        multiply_adds=counter.get_total_flops() // 2,
        mixing=sum(mixing),
        routing=sum(routing),
    )
