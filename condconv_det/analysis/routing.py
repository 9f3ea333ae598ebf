"""Routing weights as a network gives them out, and what they come to.

The figures of the CondConv paper (https://arxiv.org/abs/1904.04971, section 5) rest on these.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor, nn

from condconv_det.layers import Router
from condconv_det.weights.fit import unwrapped

# A weight this near to 0 or 1 is saturated: a sigmoid's gradient is below a fifth of its largest.
SATURATED = 0.05
# Of an even share 1/E; an expert that gets less of every image's weight is dead.
DEAD_SHARE = 0.1
# Variance; more than float32 rounding gives to a constant weight.
ROUNDING = 1e-12


class RoutingRecorder:
    """Keeps what a network's routers answer, between `start` and `stop` or as a context.

    A layer is named by the module that has the router, and the layers come in the order in which
    the network runs them; layers that share a router are one. A router that does not answer once
    for each image, as in a head that sees regions, is left out and named in `left_out`.

    Args:
        model: detector, classifier or part of one.

    Raises:
        ValueError: the network has no router.
    """

    def __init__(self, model: nn.Module) -> None:
        network = unwrapped(model)
        self.routers = {
            name.removesuffix('.router'): module
            for name, module in network.named_modules()
            if isinstance(module, Router)
        }
        if not self.routers:
            raise ValueError(
                f'{type(network).__name__} has no routed layers: none of its '
                f'{sum(1 for _ in network.modules())} modules is a Router'
            )
        self.left_out: set[str] = set()
        self._calls: dict[str, list[Tensor]] = {}
        self._batches: dict[str, list[Tensor]] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def start(self) -> None:
        """Listens to the routers from now on; forgets what they answered for an unended batch."""
        self._calls.clear()
        for name, router in self.routers.items():

            def keep(router: Router, inputs: tuple, routing: Tensor, name: str = name) -> None:
                self._calls.setdefault(name, []).append(routing.detach())

            self._hooks.append(router.register_forward_hook(keep))

    def stop(self) -> None:
        """Leaves the network as it was; what was heard is kept."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> 'RoutingRecorder':
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def end_batch(self, num_images: int) -> None:
        """Takes what came since the last call as the answers for a batch of so many images."""
        for name, calls in self._calls.items():
            if all(len(routing) == num_images for routing in calls):
                self._batches.setdefault(name, []).append(torch.stack(calls, 1))
            else:
                self.left_out.add(name)
        self._calls.clear()

    def pop(self) -> dict[str, ndarray]:
        """Each layer's weights since the last call, float64 [N, C, E].

        N images; C calls an image, more than one where a head runs on several levels; E experts.
        """
        weights = {
            name: torch.cat(batches).cpu().double().numpy()
            for name, batches in self._batches.items()
            if name not in self.left_out
        }
        self._batches.clear()
        return weights


@dataclass(frozen=True)
class Grouping:
    """Which images belong together.

    Args:
        name: of what they have in common, such as 'class'.
        groups: their names, G of them, each of at least one image.
        member: [N, G], 1 where an image belongs to a group; it may belong to several, or to none.
    """

    name: str
    groups: list[str]
    member: csr_array

    @classmethod
    def from_labels(
        cls, name: str, names: Sequence[str], labels: Sequence[Iterable[int]]
    ) -> 'Grouping':
        """Groups images by their labels.

        Args:
            name: of the grouping.
            names: of the labels; those that no image has are left out.
            labels: for each image, indices into `names`.
        """
        pairs = [(image, label) for image, found in enumerate(labels) for label in set(found)]
        images, found = np.array(pairs, int).reshape(-1, 2).T
        member = csr_array((np.ones(len(pairs)), (images, found)), (len(labels), len(names)))
        seen = np.unique(found)
        return cls(name, [names[label] for label in seen], member[:, seen])

    @property
    def counts(self) -> ndarray:
        """Images in each group, int [G]."""
        return self.member.sum(0).astype(int)

    @property
    def not_compared(self) -> str | None:
        """Why routing can't tell its groups apart, whatever it is, in words; None if it can."""
        if not self.groups:
            return f'no image has a {self.name}'
        if len(self.groups) == 1:
            images = f'all {self.counts[0]} images with a {self.name}'
            return f'{images} have the same one, {self.groups[0]}'
        if (self.member.sum(1) % len(self.groups) == 0).all():
            return f'every image with a {self.name} is of each of the {len(self.groups)}'
        if self.counts.max() == 1:
            return f'no {self.name} has two images'
        return None

    def images(self, group: int) -> ndarray:
        """Indices of a group's images."""
        return self.member[:, [group]].nonzero()[0]

    def mean_weights(self, weights: ndarray) -> ndarray:
        """Mean weight of each expert in each group, [G, E], of a layer's weights [N, C, E]."""
        return self.member.T @ weights.mean(1) / self.member.sum(0)[:, None]


@dataclass(frozen=True)
class LayerSummary:
    """What a layer's routing weights come to.

    Args:
        entropy: bits, the mean over images of the entropy of the experts' shares in the image's
            weight: 0 for one expert alone, log2(E) for all alike.
        deviation: of an expert's weight over the images, root mean square over the experts and the
            calls, such as a head's levels; 0 where all images get the same kernels.
        saturated: part of the weights that lie within 0.05 of 0 or of 1.
        dead: experts that get less than a tenth of an even share of every image's weight.
    """

    entropy: float
    deviation: float
    saturated: float
    dead: list[int]


def summarize(weights: ndarray) -> LayerSummary:
    """Sums up a layer's weights, [N, C, E]."""
    rows = weights.reshape(-1, weights.shape[-1])
    totals = rows.sum(1, keepdims=True)
    shares = np.divide(rows, totals, out=np.zeros_like(rows), where=totals > 0)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    even = 1 / rows.shape[1]
    return LayerSummary(
        entropy=float(-(shares * logs).sum(1).mean()),
        deviation=float(np.sqrt(weights.var(0).mean())),
        saturated=float(((rows < SATURATED) | (rows > 1 - SATURATED)).mean()),
        dead=np.flatnonzero(shares.max(0) < DEAD_SHARE * even).tolist(),
    )


def variance_ratio(weights: ndarray, member: csr_array) -> float:
    """Variance of a layer's weights between groups over that within them.

    Both are summed over experts and calls, so that levels of a head that differ count as neither.

    0 where all groups get the same mean kernel; 1 where half of the variance is the groups'. An
    image counts once in each group that it belongs to. Weights that are constant but for rounding
    have the ratio 0. Of groups that cannot be told apart (`Grouping.not_compared`) the ratio is one
    of rounding errors.

    Args:
        weights: [N, C, E].
        member: of a `Grouping`, [N, G]; each group has an image.
    """
    rows = weights.reshape(len(weights), -1)
    times, counts = member.sum(1), member.sum(0)
    rows = rows - times @ rows / times.sum()
    between = ((member.T @ rows) ** 2 / counts[:, None]).sum()
    total = times @ (rows**2).sum(1)
    rounding = ROUNDING * counts.sum() * rows.shape[1]
    if total <= rounding:
        return 0.0
    return float(between / (max(total - between, 0) + rounding))


def chance_ratio(weights: ndarray, member: csr_array) -> float:
    """The largest `variance_ratio` of images that are dealt out to the groups at random.

    Of 100 deals, so that a ratio above it comes by chance once in 101 times.
    """
    rng = np.random.default_rng(0)
    return max(variance_ratio(rng.permutation(weights), member) for _ in range(100))
