"""What else a user might put in the place of this package's layer.

Each form is made from one of our layers and computes the same from the same experts.
"""

import copy
from collections.abc import Callable

import timm.layers
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

from condconv_det import CondConv2d


def plain_conv(layer: CondConv2d, out_channels: int | None = None) -> nn.Conv2d:
    """The static convolution of a layer's geometry, with weights of its own."""
    same = layer.padding == 'same'
    return (Conv2dAdaptivePadding if same else nn.Conv2d)(
        layer.in_channels,
        out_channels or layer.out_channels,
        layer.kernel_size,
        layer.stride,
        0 if same else layer.padding,
        layer.dilation,
        layer.groups,
        bias=False,
    )


def timm_conv(layer: CondConv2d) -> timm.layers.CondConv2d:
    """timm's layer: mixes the kernels, then runs one convolution with the batch as its groups."""
    conv = timm.layers.CondConv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size[0],
        layer.stride[0],
        layer.padding,
        layer.dilation[0],
        layer.groups,
        num_experts=layer.num_experts,
    )
    conv.weight.data.copy_(layer.weight.data.flatten(1))
    return conv


class MixedOutputs(nn.Module):
    """One plain convolution computes every expert's output; the outputs are mixed.

    Shapes:
        x [B, Cin, H, W], routing [B, E] -> [B, Cout, H', W'].
    """

    def __init__(self, layer: CondConv2d) -> None:
        super().__init__()
        self.groups, self.num_experts = layer.groups, layer.num_experts
        self.conv = plain_conv(layer, layer.num_experts * layer.out_channels)
        # A group's output channels stand side by side: [E, g * o, ...] -> [g * E * o, ...].
        experts = layer.weight.data.unflatten(1, (self.groups, -1))
        self.conv.weight.data.copy_(experts.transpose(0, 1).flatten(0, 2))

    def forward(self, x: Tensor, routing: Tensor) -> Tensor:
        y = self.conv(x)
        height, width = y.shape[-2:]
        y = y.unflatten(1, (self.groups, self.num_experts, -1)).flatten(3)  # [B, g, E, o * H * W]
        y = routing[:, None, None] @ y
        return y.unflatten(3, (-1, height, width)).flatten(1, 3)


class StandIn(CondConv2d):
    """Another form of a layer inside a network, which hands its routing weights to `CondConv2d`s.

    Args:
        layer: gives its router and its place.
        form: is called with x and routing weights.
    """

    _apply = nn.Module._apply  # it has no experts of its own

    def __init__(self, layer: CondConv2d, form: nn.Module) -> None:
        nn.Module.__init__(self)
        self.router = layer.router
        self.form = form

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        return self.form(x, self.router(x) if routing is None else routing)

    def extra_repr(self) -> str:
        return ''


def replace_layers(network: nn.Module, make_form: Callable[[CondConv2d], nn.Module]) -> nn.Module:
    """A copy of a network with another form in the place of each of our layers.

    Raises:
        ValueError: a layer has a bias: ours is one for all experts, timm's is mixed.
    """
    network = copy.deepcopy(network)
    for name, layer in list(network.named_modules()):
        if type(layer) is CondConv2d:
            if layer.bias is not None:
                raise ValueError(f'{name} must have no bias, got {layer}')
            parent, _, child = name.rpartition('.')
            setattr(network.get_submodule(parent), child, StandIn(layer, make_form(layer)))
    return network


def expert_bytes(form: nn.Module) -> int:
    """Memory of the experts in our layers."""
    return sum(m.weight.nbytes for m in form.modules() if type(m) is CondConv2d)
