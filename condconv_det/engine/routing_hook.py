"""Routing in numbers, beside the losses."""

from bisect import bisect
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from numpy import ndarray

from condconv_det.analysis.routing import Grouping, RoutingRecorder, summarize, variance_ratio
from condconv_det.weights.fit import listing


@HOOKS.register_module()
class RoutingHook(Hook):
    """Logs at the end of each epoch how the network routed the epoch's last images.

    Goes to the runner's visualizer, thus to `scalars.json` and, with its backend, to TensorBoard:
    `routing/entropy`, `routing/deviation`, `routing/saturated`, `routing/dead` and, where images
    have classes, `routing/between_over_within`, each the mean over all layers; and the same for
    each layer as `routing_entropy/<layer>` and so on. They are `summarize`'s and `variance_ratio`'s
    of `condconv_det.analysis.routing`; dead is the part of the experts that are. Of several
    processes the first logs what it saw.

    A training that counts iterations in place of epochs logs before each validation. Routers that
    do not answer once for each image, as those of heads that see regions, are left out, with one
    warning.

    Args:
        num_iters: of the epoch's last ones that are looked at, at least 1.

    Raises:
        ValueError: `num_iters` is below 1, or, before training, the network has no routed layers,
            is compiled, or trains on several batches at once, as semi-supervised detectors do.
    """

    def __init__(self, num_iters: int = 32) -> None:
        if num_iters < 1:
            raise ValueError(f'num_iters must be at least 1, got {num_iters}')
        self.num_iters = num_iters

    def before_train(self, runner: Runner) -> None:
        if runner.cfg.get('compile'):
            raise ValueError(
                'RoutingHook does not hear the routers of a compiled network; take it out, or '
                f'compile={runner.cfg.compile}'
            )
        self._recorder = RoutingRecorder(runner.model)
        self._labels: list[set[int]] = []
        self._named: set[str] = set()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        samples = data_batch['data_samples']
        if isinstance(samples, dict):
            raise ValueError(
                f'RoutingHook looks at one batch a step, got {", ".join(samples)}, as of a '
                'semi-supervised detector; take it out, and see tools/analyze_routing.py'
            )
        if runner.rank == 0 and self._iters_left(runner, batch_idx) < self.num_iters:
            self._recorder.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        left = self._iters_left(runner, batch_idx)
        if runner.rank != 0 or left >= self.num_iters:
            return
        self._recorder.stop()
        samples = data_batch['data_samples']
        self._recorder.end_batch(len(samples))
        self._labels += map(_labels, samples)
        if left == 0:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            step = runner.epoch if by_epoch else runner.iter
            runner.visualizer.add_scalars(self._scalars(), step=step + 1)
            self._labels = []
            left_out = self._recorder.left_out - self._named
            if left_out:
                runner.logger.warning(
                    f'RoutingHook leaves out {listing(left_out)}: their routers do not answer once '
                    'for each image'
                )
            self._named |= left_out

    def _scalars(self) -> dict[str, float]:
        highest = max(map(max, filter(None, self._labels)), default=-1)
        names = [str(label) for label in range(highest + 1)]
        grouping = Grouping.from_labels('class', names, self._labels)
        found = {
            layer: _summarize(weights, grouping) for layer, weights in self._recorder.pop().items()
        }
        scalars: dict[str, float] = {}
        for key in next(iter(found.values()), {}):
            scalars[f'routing/{key}'] = float(np.mean([numbers[key] for numbers in found.values()]))
            for layer, numbers in found.items():
                scalars[f'routing_{key}/{layer}'] = numbers[key]
        return scalars

    def _iters_left(self, runner: Runner, batch_idx: int) -> int:
        """Iterations that follow this one before the next time to log, up to `num_iters`."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            return len(runner.train_dataloader) - 1 - batch_idx
        for left in range(self.num_iters):
            done = loop.iter + 1 + left
            # as the loop decides it
            interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
            if done % interval == 0 or done == loop.max_iters:
                return left
        return self.num_iters


def _labels(sample: Any) -> set[int]:
    """Classes of an image by a data sample of mmdet or mmpretrain; empty if they are unknown."""
    instances = getattr(sample, 'gt_instances', None)
    labels = getattr(sample, 'gt_label', None) if instances is None else instances.get('labels')
    return set() if labels is None else set(labels.flatten().tolist())


def _summarize(weights: ndarray, grouping: Grouping) -> dict[str, float]:
    summary = summarize(weights)
    numbers = dict(
        entropy=summary.entropy,
        deviation=summary.deviation,
        saturated=summary.saturated,
        dead=len(summary.dead) / weights.shape[-1],
    )
    if grouping.not_compared is None:
        numbers['between_over_within'] = variance_ratio(weights, grouping.member)
    return numbers
