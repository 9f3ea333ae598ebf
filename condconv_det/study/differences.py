"""What a study's runs reach, and by how much arms differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from condconv_det.analysis.bootstrap import (
    ALL_IMAGES,
    ClassMatches,
    difference_interval,
    match_detections,
    mean_average_precision,
    mean_over_groups,
    resample_maps,
)

from .plan import Arm, Study
from .runs import Run


@dataclass(frozen=True)
class Difference:
    """Of an arm's mean mAP from its baseline's, over the seeds that both have.

    Args:
        mean, low, high: the difference and the ends of its 95 percent interval.
        seeds: how many.
    """

    mean: float
    low: float
    high: float
    seeds: int


class Found(NamedTuple):
    """What runs, by arm and seed, reach on a split.

    Args:
        maps: mAP of each group of images that has boxes, by name; without groups, of all,
            by None.
        resampled: the same on each resample of the images, [R].
    """

    maps: dict[tuple[str, int], dict[str | None, float]]
    resampled: dict[tuple[str, int], dict[str | None, ndarray]]


def measure(study: Study, done: Sequence[Run], split: str, num_resamples: int) -> Found:
    """What runs that are done reach on a split; arms on the same images share their resamples."""
    found = Found({}, {})
    for arms in _on_one_set(study, split):
        matches = {
            (run.arm, run.seed): _match(study.arms[run.arm], run, split)
            for run in done
            if run.arm in arms
        }
        if not matches:
            continue
        num_boxes = sum(of_class.num_boxes for of_class in next(iter(matches.values())))
        groups = study.arms[arms[0]].groups(split) or {None: ALL_IMAGES}
        # one without boxes has no mAP
        groups = {name: group for name, group in groups.items() if (num_boxes * group).any()}
        once = np.ones(len(num_boxes), int)
        for key, of_run in matches.items():
            found.maps[key] = {
                name: mean_average_precision(of_run, once * group) for name, group in groups.items()
            }
        drawn = resample_maps(list(matches.values()), num_resamples, groups=list(groups.values()))
        for key, of_run in zip(matches, drawn):
            found.resampled[key] = dict(zip(groups, of_run))
    return found


class Differences(NamedTuple):
    """An arm's, on a split.

    Args:
        all: of the mean of all groups.
        alone, without: of each group, and of the mean of all but it.
    """

    all: Difference | None
    alone: dict[str, Difference]
    without: dict[str, Difference]


def find_differences(arm: Arm, seeds: Sequence[int], found: Found) -> Differences:
    """Compares an arm with its baseline over the seeds that both have."""
    pairs = [((arm.name, seed), (arm.baseline, seed)) for seed in seeds]
    pairs = [(ours, theirs) for ours, theirs in pairs if {ours, theirs} <= set(found.maps)]
    if arm.name == arm.baseline or not pairs:
        return Differences(None, {}, {})

    def over(groups: Sequence[str | None]) -> Difference:
        means = [
            _mean(found.maps[ours], groups) - _mean(found.maps[theirs], groups)
            for ours, theirs in pairs
        ]
        ours, theirs = (
            np.stack([_mean(found.resampled[key], groups) for key in keys]) for keys in zip(*pairs)
        )
        return Difference(float(np.mean(means)), *difference_interval(ours, theirs), len(pairs))

    names = list(found.maps[pairs[0][0]])
    if len(names) == 1:
        return Differences(over(names), {}, {})
    return Differences(
        over(names),
        {name: over([name]) for name in names},
        {name: over([other for other in names if other != name]) for name in names},
    )


def _mean(maps: dict[str | None, float | ndarray], groups: Sequence[str | None]) -> ndarray:
    return mean_over_groups([maps[group] for group in groups])


def _on_one_set(study: Study, split: str) -> list[list[str]]:
    """Names of arms, those together that are measured on the same images."""
    by_set: dict[str, list[str]] = {}
    for arm in study.arms.values():
        by_set.setdefault(arm.annotations(split), []).append(arm.name)
    return list(by_set.values())


def _match(arm: Arm, run: Run, split: str) -> list[ClassMatches]:
    return match_detections(
        Path(arm.annotations(split)), run.predictions(split), arm.classes(split)
    )
