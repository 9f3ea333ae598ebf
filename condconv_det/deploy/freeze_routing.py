"""Routing fixed for good: an ordinary static network out of a routed one.

Where images are routed much alike, as those of one camera are, the mean of their routing weights
mixes each layer's kernel once. What is left has neither routers nor experts.
"""

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmdet.models import SemiBaseDetector
from mmdet.models.roi_heads import BaseRoIHead
from numpy import ndarray
from torch import Tensor, nn

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.layers import CondConv2d, CondLinear, Experts, Router
from condconv_det.weights.fit import listing


def freeze_routing(model: nn.Module, routing: Mapping[str, Tensor | ndarray]) -> nn.Module:
    """A copy of a model whose layers have the kernels that the given routing weights mix.

    It is the static twin, in parameters and in speed, and its state dict loads into the network
    that the config without `cond_cfg` and `conv_cfg=dict(type='CondConv2d')` describes.

    Args:
        model: detector, classifier or part of one; in training or in eval mode, as the copy is.
        routing: [E] by the layer that has the router, as `mean_routing` gives them.

    Raises:
        ValueError: the model cannot be frozen, see `check_freezable`; routing weights are missing,
            are of no router, of another number or not finite; or a layer pads by reflection, say,
            as TensorFlow's "same", which no static layer does.
    """
    check_freezable(model)
    model = copy.deepcopy(model)
    routers = RoutingRecorder(model).routers
    _check_routing(routers, routing)
    static: dict[nn.Module, nn.Module] = {}
    for name, layer, router in routed_layers(model):
        dtype = routers[router].fc.weight.dtype  # experts may be of half precision
        weights = torch.as_tensor(routing[router], dtype=torch.float64)
        static[layer] = static_layer(name, layer, weights, dtype)
    for router in routers.values():
        put_router(model, router, None)  # a block's
    return put_static(model, static)


def mean_routing(weights: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """The mean over images and calls, [E] by layer.

    Args:
        weights: [N, C, E] by layer, as `RoutingRecorder.pop` returns them. C is above 1 where a
            head runs on several feature maps, which get one kernel.
    """
    return {layer: values.mean((0, 1)) for layer, values in weights.items()}


def kernel_spread(model: nn.Module, weights: Mapping[str, ndarray]) -> dict[str, float]:
    """How far images' own kernels lie from the mean kernel, by routed layer.

    The root mean square, over images and calls, of the Euclidean distance, divided by the mean
    kernel's norm: 0 where all get one kernel.

    Args:
        model: with routers, as for `freeze_routing`.
        weights: [N, C, E] by the layer that has the router.
    """
    found = {}
    for name, layer, router in routed_layers(model):
        rows = weights[router].reshape(-1, layer.num_experts)
        experts = layer.weight.detach().flatten(1).double()
        products = (experts @ experts.T).cpu().numpy()
        mean = rows.mean(0)
        away = rows - mean
        square = np.einsum('ne,ef,nf->n', away, products, away).clip(0).mean()
        # one kernel for all can be zero
        found[name] = float(np.sqrt(square / (mean @ products @ mean))) if square else 0.0
    return found


def check_freezable(model: nn.Module) -> None:
    """Raises ValueError, which says why, if a model's routing cannot be frozen."""
    name = type(model).__name__
    if isinstance(model, SemiBaseDetector):
        raise ValueError(
            f'{name} is a teacher and a student, and one alone answers: freeze that, by a config '
            "whose model is the detector, and the weights of its name without 'teacher.' or "
            "'student.'"
        )
    routers = RoutingRecorder(model).routers  # says that the model is static
    check_unmerged(model)
    hierarchical = [layer for layer, router in routers.items() if router.hierarchical]
    if hierarchical:
        raise ValueError(
            f'{name} has hierarchical routers, which cannot be frozen: each answers to the weights '
            'of the one before it, image by image, and the means of each alone are a combination '
            f'that no image had: {listing(hierarchical)}'
        )
    of_regions = {
        router
        for head in model.modules()
        if isinstance(head, BaseRoIHead)
        for router in head.modules()
    }
    regions = [layer for layer, router in routers.items() if router in of_regions]
    if regions:
        raise ValueError(
            f'{name} routes regions of an image, which cannot be frozen: each region has kernels '
            'of its own, by what it shows, and all sites show all kinds; leave the RoI head plain: '
            f'{listing(regions)}'
        )


def check_unmerged(model: nn.Module) -> None:
    """Raises ValueError if `merge_experts` has put routers of its own in a model."""
    merged = [
        name
        for name, module in model.named_modules()
        if isinstance(getattr(getattr(module, 'router', None), 'router', None), Router)
    ]
    if merged:
        raise ValueError(
            f'experts of {type(model).__name__} are merged already: take the network that they '
            f'were merged of, or its checkpoint; merged are those of {listing(merged)}'
        )


def routed_layers(model: nn.Module) -> Iterator[tuple[str, Experts, str]]:
    """Each routed layer: its name, the layer, the name of the layer that has its router.

    Raises:
        ValueError: a layer was built with `routing=None`, and no router comes before it.
    """
    names = {router: name for name, router in RoutingRecorder(model).routers.items()}
    router = None  # blocks and layers are registered in the order in which they run
    for name, module in model.named_modules():
        own = getattr(module, 'router', None)
        router = own if isinstance(own, Router) else router
        if isinstance(module, Experts):
            if router is None:
                raise ValueError(f'{name} was built with routing=None and no router is before it')
            yield name, module, names[router]


def _check_routing(routers: Mapping[str, Router], routing: Mapping[str, Tensor | ndarray]) -> None:
    missing, unknown = routers.keys() - routing.keys(), routing.keys() - routers.keys()
    if missing or unknown:
        raise ValueError(
            f'routing must be of the {len(routers)} routers of the model; it lacks '
            f'{listing(missing) or "none"}, and there is no {listing(unknown) or "other"}'
        )
    for name, router in routers.items():
        weights = torch.as_tensor(routing[name])
        if weights.shape != (router.fc.out_features,) or not weights.isfinite().all():
            raise ValueError(
                f'routing of {name} must be [E] = [{router.fc.out_features}] finite weights, '
                f'got {weights}'
            )


def put_router(model: nn.Module, router: Router, other: nn.Module | None) -> None:
    """Puts another router, or none, in the place of a router of a model."""
    for owner in list(model.modules()):  # the other one may hold this one
        if getattr(owner, 'router', None) is router:
            owner.router = other


def put_static(model: nn.Module, static: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A model with static layers in the place of routed ones; the model itself may be one."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out repeats
            if child in static:
                setattr(parent, name, static[child])
    return static.get(model, model)


def static_layer(name: str, layer: Experts, routing: Tensor, dtype: torch.dtype) -> nn.Module:
    """The layer without experts that has the kernel which routing weights, [E], mix.

    Raises:
        ValueError: no static layer pads as `layer`, which is named `name`, does.
    """
    routing = routing.to(layer.weight.device)
    with_bias = layer.bias is not None
    with torch.device('meta'):  # neither memory nor random numbers for weights that are replaced
        if isinstance(layer, CondLinear):
            static = nn.Linear(layer.in_features, layer.out_features, with_bias)
        else:
            static = _static_convolution(name, layer, with_bias)
    mixed = torch.tensordot(routing, layer.weight.detach().double(), dims=1).to(dtype)
    static.weight = nn.Parameter(mixed, layer.weight.requires_grad)
    static.bias = layer.bias
    return static.train(layer.training)


def _static_convolution(name: str, layer: CondConv2d, with_bias: bool) -> nn.Conv2d:
    channels = layer.in_channels, layer.out_channels
    if layer.padding != 'same':
        return nn.Conv2d(
            *channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            with_bias,
            layer.padding_mode,
        )
    if layer.padding_mode != 'zeros':
        raise ValueError(
            f"{name} has padding='same' and padding_mode={layer.padding_mode!r}: the static layer "
            'of that padding, Conv2dAdaptivePadding, pads with zeros'
        )
    return Conv2dAdaptivePadding(
        *channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=with_bias,
    )
