"""Layers one by one: five typical ones, and every routed layer of our networks."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.forms import MixedOutputs, plain_conv, timm_conv
from benchmarks.subject import LAYER_PASSES, Subject
from condconv_det import CondConv2d
from condconv_det.analysis.interleave import Call

LARGEST_BATCH = 128


@dataclass(frozen=True)
class Geometry:
    """A convolution, and the height and width of what it is given."""

    in_channels: int
    out_channels: int
    kernel_size: int
    height: int
    width: int
    stride: int = 1
    padding: int | str = 0
    groups: int = 1

    def __str__(self) -> str:
        kernel = f'{self.kernel_size}x{self.kernel_size}'
        channels = f'{self.in_channels}->{self.out_channels}'
        stride = f' stride {self.stride}' if self.stride > 1 else ''
        size = f'{self.height}x{self.width}'
        if self.groups == self.in_channels:
            return f'depthwise {kernel} {self.in_channels}{stride} at {size}'
        groups = f' groups {self.groups}' if self.groups > 1 else ''
        return f'{kernel} {channels}{groups}{stride} at {size}'

    def layer(self, num_experts: int) -> CondConv2d:
        """Our layer, which is handed its routing weights."""
        return CondConv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            groups=self.groups,
            bias=False,
            num_experts=num_experts,
            routing=None,
        )


# Kernels large and small, maps large and small, every kind of convolution.
TYPICAL = (
    Geometry(1024, 1024, 1, 10, 10),
    Geometry(512, 512, 1, 19, 19),
    Geometry(192, 1152, 1, 7, 7),
    Geometry(512, 512, 3, 19, 19, padding=1, groups=512),
    Geometry(256, 512, 3, 10, 10, stride=2, padding='same'),
)
# So small that the time is the call's.
TINY = (Geometry(8, 8, 1, 4, 4), Geometry(8, 8, 3, 4, 4, padding=1, groups=8))


class FixedRouting(nn.Module):
    """A form of the layer, called with x alone; its routing weights are parameters."""

    def __init__(self, form: nn.Module, num_experts: int) -> None:
        super().__init__()
        self.form = form
        routing = torch.rand(LARGEST_BATCH, num_experts, generator=torch.Generator().manual_seed(0))
        self.routing = nn.Parameter(routing)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, self.routing[: len(x)])


def layer_forms(geometry: Geometry) -> dict[str, nn.Module]:
    """The plain layer, ours, timm's, and the one that mixes outputs."""
    layer = geometry.layer(8)
    routed = dict(ours=layer, timm=timm_conv(layer), outputs=MixedOutputs(layer))
    return dict(
        plain=plain_conv(layer),
        **{name: FixedRouting(form, layer.num_experts) for name, form in routed.items()},
    )


def expert_forms(geometry: Geometry) -> dict[str, nn.Module]:
    """Our layer with few experts and with many."""
    return {f'{e} experts': FixedRouting(geometry.layer(e), e) for e in (4, 8, 16)}


def layer_inputs(geometry: Geometry, batch: int) -> tuple[Tensor]:
    """x [B, Cin, H, W], which is given a gradient."""
    shape = (batch, geometry.in_channels, geometry.height, geometry.width)
    return (torch.randn(shape).requires_grad_(),)


def layer_step(form: nn.Module, x: Tensor) -> Call:
    """A call that computes the gradients of x, the routing weights and the kernels."""
    form.train()
    with torch.no_grad():
        grad = torch.randn_like(form(x))
    targets = [x, *form.parameters()]
    return lambda: torch.autograd.grad(form(x), targets, grad)


def layer_subjects(geometries: Iterable[Geometry]) -> list[Subject]:
    return [_subject('layers', geometry, layer_forms) for geometry in geometries]


def expert_subjects(geometries: Iterable[Geometry]) -> list[Subject]:
    return [_subject('experts', geometry, expert_forms) for geometry in geometries]


def _subject(level: str, geometry: Geometry, forms) -> Subject:
    return Subject(
        level,
        str(geometry),
        partial(forms, geometry),
        partial(layer_inputs, geometry),
        layer_step,
        LAYER_PASSES,
    )


def routed_geometries(network: nn.Module, *inputs, **kwargs) -> list[Geometry]:
    """The distinct routed layers of a network that is run on these inputs."""
    found: list[Geometry] = []

    def record(layer: CondConv2d, args: tuple, _) -> None:
        height, width = args[0].shape[-2:]
        found.append(
            Geometry(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size[0],
                height,
                width,
                layer.stride[0],
                _padding(layer),
                layer.groups,
            )
        )

    for layer in network.modules():
        if isinstance(layer, CondConv2d):
            layer.register_forward_hook(record)
    network.eval()
    with torch.no_grad():
        network(*inputs, **kwargs)
    return distinct(found)


def distinct(geometries: Iterable[Geometry]) -> list[Geometry]:
    """One of each name, in order."""
    return list({str(geometry): geometry for geometry in geometries}.values())


def _padding(layer: CondConv2d) -> int | str:
    if layer.padding == 'same':
        return 'same' if layer.stride[0] > 1 else layer.kernel_size[0] // 2
    return layer.padding[0]
