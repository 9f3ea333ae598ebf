"""Fewer experts that mix to almost the same kernels.

A network with eight experts could give its images kernels of eight dimensions. Those that a trained
one gives lie close to a plane of one or two: images are routed in few ways. So each layer keeps its
mean kernel and the principal directions in which its kernels leave it, found from the routing
weights of some images. The paper has nothing of the kind.
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.layers import Experts, Router
from condconv_det.layers.expert_fans import mark_expert_axis
from condconv_det.weights.fit import listing

from .freeze_routing import check_unmerged, put_router, put_static, routed_layers, static_layer

NO_KERNEL = 1e-12  # of the experts' squared size: a direction in which no kernel moves


class MergedRouter(nn.Module):
    """A router whose weights become those of fewer experts: 1, and one for each direction.

    Args:
        router: of the E experts that were merged.
        directions: [K, E].
        mean: [E], the routing weights at which all directions are 0.

    Shapes:
        x [B, C, H, W] -> [B, 1 + K].
    """

    hierarchical = False

    def __init__(self, router: Router, directions: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.router = router
        like = router.fc.weight
        self.merge = nn.Linear(len(mean), 1 + len(directions), device=like.device, dtype=like.dtype)
        with torch.no_grad():
            self.merge.weight.copy_(torch.cat([torch.zeros_like(mean)[None], directions]))
            self.merge.bias.copy_(torch.cat([torch.ones_like(mean[:1]), -directions @ mean]))

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        return self.merge(self.router(x))


def merge_experts(model: nn.Module, weights: Mapping[str, ndarray], tolerance: float) -> nn.Module:
    """A copy of a model, for inference, with as few experts as mix to its kernels by a tolerance.

    A layer of which one kernel is enough becomes a static one; one that would not get smaller is
    left as it is. The copy has other parameters than its config builds.

    Args:
        model: detector, classifier or part of one.
        weights: routing weights of images like those that the copy is for, [N, C, E] by the layer
            that has the router, as `RoutingRecorder.pop` returns them. C is above 1 where a head
            runs on several feature maps.
        tolerance: how far kernels may move, the root mean square over images and calls of the
            Euclidean distance over the mean kernel's norm; of layers that share a router, in the
            root mean square over them.

    Raises:
        ValueError: tolerance is not between 0 and 1; the model is static, merged already or has
            hierarchical routers; weights of a router are missing, of fewer than two images, or not
            [N, C, E].
    """
    if not 0 < tolerance < 1:
        raise ValueError(f'tolerance must be above 0 and below 1, got {tolerance}')
    model = copy.deepcopy(model)
    routers = RoutingRecorder(model).routers  # says that the model is static
    _check(model, routers, weights)
    layers: dict[str, list[tuple[str, Experts]]] = {}
    for name, layer, router in routed_layers(model):
        layers.setdefault(router, []).append((name, layer))
    static: dict[nn.Module, nn.Module] = {}
    for owner, group in layers.items():
        router = routers[owner]
        rows = weights[owner].reshape(-1, router.fc.out_features)
        mean, dtype = rows.mean(0), router.fc.weight.dtype
        encode, decode = _directions([layer for _, layer in group], rows, tolerance)
        if len(encode) + 1 >= len(mean):
            continue
        if not len(encode):
            for name, layer in group:
                static[layer] = static_layer(name, layer, torch.from_numpy(mean), dtype)
            put_router(model, router, None)
            continue
        mixes = torch.from_numpy(np.concatenate([mean[None], decode]))
        for _, layer in group:
            _mix_experts(layer, mixes)
        merged = MergedRouter(router, torch.from_numpy(encode), torch.from_numpy(mean))
        put_router(model, router, merged.train(router.training))
    return put_static(model, static)


def _directions(layers: list[Experts], rows: ndarray, tolerance: float) -> tuple[ndarray, ndarray]:
    """The principal directions of layers' kernels over images, as few as keep to a tolerance.

    Routing weights `mean + encode.T`-coordinates `a = encode @ (row - mean)` mix to almost the
    kernel of `mean + a @ decode`.

    Args:
        rows: [N, E], the routing weights.

    Returns:
        encode and decode, [K, E] both.
    """
    mean = rows.mean(0)
    away = rows - mean
    gram = np.zeros((len(mean), len(mean)))  # of kernels, each layer's relative to its mean kernel
    for layer in layers:
        experts = layer.weight.detach().flatten(1).double()
        products = (experts @ experts.T).cpu().numpy()
        gram += products / (mean @ products @ mean) / len(layers)
    squares, axes = np.linalg.eigh(gram)
    roots = np.sqrt(squares.clip(0))
    known = squares > NO_KERNEL * squares.max()
    inverse = np.divide(1, roots, out=np.zeros_like(roots), where=known)
    scaled = (away @ axes) * roots  # [N, E], in which distances are the kernels'
    spreads, turns = np.linalg.eigh(scaled.T @ scaled / len(rows))
    left = np.sqrt(np.append(0, spreads.clip(0).cumsum()))  # without the first, the first two...
    count = len(mean) - np.flatnonzero(left <= tolerance).max()
    kept = turns[:, len(mean) - count :]
    return (kept.T * roots) @ axes.T, (kept.T * inverse) @ axes.T


def _mix_experts(layer: Experts, mixes: Tensor) -> None:
    """Puts mixtures, [E', E], in the place of a layer's E experts."""
    experts = layer.weight
    mixed = torch.tensordot(mixes.to(experts.device), experts.detach().double(), dims=1)
    layer.weight = mark_expert_axis(nn.Parameter(mixed.to(experts.dtype), experts.requires_grad))
    layer.num_experts = len(mixes)


def _check(model: nn.Module, routers: Mapping[str, Router], weights: Mapping[str, ndarray]) -> None:
    name = type(model).__name__
    check_unmerged(model)
    hierarchical = [layer for layer, router in routers.items() if router.hierarchical]
    if hierarchical:
        raise ValueError(
            f'experts of {name} cannot be merged: its routers are hierarchical, and each reads all '
            f'weights of the one before it: {listing(hierarchical)}'
        )
    missing = routers.keys() - weights.keys()
    if missing:
        raise ValueError(
            f'experts of {name} cannot be merged without routing weights, one for each image; none '
            f'came of {listing(missing)}'
        )
    for layer, router in routers.items():
        shape = weights[layer].shape
        if len(shape) != 3 or shape[0] < 2 or shape[2] != router.fc.out_features:
            raise ValueError(
                f'routing weights of {layer} must be [N, C, E] of at least 2 images and '
                f'{router.fc.out_features} experts, got {list(shape)}'
            )
