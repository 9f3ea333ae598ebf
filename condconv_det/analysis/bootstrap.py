"""COCO mAP of resampled images, and what it says about a difference between detectors.

The bootstrap of B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), section 13.3:
images are drawn with replacement as often as there are images, and every detector is measured on
the same draw, so that what makes an image easy or hard for all of them leaves their difference.
"""

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from os import devnull
from pathlib import Path

import numpy as np
from numpy import ndarray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class in all images, the surest first, as COCOeval matched them.

    Args:
        image: [D], index of the image that each detection is in.
        true, false: [T, D], whether it is a true or a false positive at each IoU threshold; neither
            if it lies on a crowd.
        num_boxes: [N], true boxes of the class in each image.
    """

    image: ndarray
    true: ndarray
    false: ndarray
    num_boxes: ndarray


def match_detections(
    ann_file: Path,
    predictions: Path,
    classes: Sequence[str] | None = None,
    iou_thrs: Sequence[float] | None = None,
) -> list[ClassMatches]:
    """Matches a detector's boxes with the true ones, once for any number of resamples.

    Args:
        ann_file: COCO annotations; their images are the sample.
        predictions: COCO results.
        classes: names of those that count; None counts all.
        iou_thrs: T IoU thresholds; None is COCO's, 0.5 to 0.95.

    Returns:
        One for each class, all with the images in the same order.
    """
    with open(devnull, 'w') as quiet, redirect_stdout(quiet):
        truth = COCO(str(ann_file))
        results = json.loads(Path(predictions).read_text())
        # loadRes refuses an empty list
        found = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, found, 'bbox')
        evaluation.params.catIds = truth.getCatIds(catNms=list(classes or []))
        if iou_thrs is not None:
            evaluation.params.iouThrs = iou_thrs
        evaluation.params.maxDets = [100]
        evaluation.params.areaRng = [[0, 1e5**2]]
        evaluation.params.areaRngLbl = ['all']
        evaluation.evaluate()
    num_images = len(evaluation.params.imgIds)
    return [
        _of_one_class(evaluation.evalImgs[first : first + num_images])
        for first in range(0, len(evaluation.evalImgs), num_images)
    ]


def _of_one_class(images: list[dict | None]) -> ClassMatches:
    """From COCOeval's `evalImgs`, which are None where an image has nothing of the class."""
    num_boxes = np.array([image is not None and (1 - image['gtIgnore']).sum() for image in images])
    some = [(index, image) for index, image in enumerate(images) if image is not None]
    if not some:
        return ClassMatches(np.empty(0, int), np.empty((10, 0)), np.empty((10, 0)), num_boxes)
    scores = np.concatenate([image['dtScores'] for _, image in some])
    order = np.argsort(-scores, kind='mergesort')  # as COCOeval sorts
    matched = np.concatenate([image['dtMatches'] for _, image in some], 1)[:, order] != 0
    counts = ~np.concatenate([image['dtIgnore'] for _, image in some], 1)[:, order].astype(bool)
    index = np.repeat([i for i, _ in some], [len(image['dtScores']) for _, image in some])
    return ClassMatches(index[order], matched & counts, ~matched & counts, num_boxes)


def mean_average_precision(classes: Sequence[ClassMatches], times: ndarray) -> float:
    """COCO's mAP (the IoU thresholds of the matches, all areas, 100 detections) of a resample.

    As `COCOeval.accumulate`, to which an image that was drawn twice is two images.

    Args:
        classes: from `match_detections`.
        times: [N], how often each image was drawn.

    Returns:
        The mean over the classes that the resample has boxes of; NaN if it has none.
    """
    precisions = [_average_precision(matches, times) for matches in classes]
    known = [precision for precision in precisions if precision is not None]
    return float(np.mean(known)) if known else float('nan')


def mean_over_groups(maps: Sequence[float | ndarray]) -> ndarray:
    """The mean mAP of those groups of images that have boxes; NaN where none has.

    Args:
        maps: of each group one, or one for each resample, [R].
    """
    known = (~np.isnan(maps)).sum(0)
    return np.where(known, np.nansum(maps, 0) / np.maximum(known, 1), np.nan)


RECALLS = np.linspace(0, 1, 101)
# as a group
ALL_IMAGES = np.ones(1, int)


def _average_precision(matches: ClassMatches, times: ndarray) -> float | None:
    num_boxes = matches.num_boxes @ times
    if num_boxes == 0:
        return None
    weight = times[matches.image]
    true = np.cumsum(matches.true * weight, 1)  # [T, D]
    false = np.cumsum(matches.false * weight, 1)
    precision = true / (true + false + np.spacing(1))
    # the best that is to be had at this recall or a higher one; none beyond the last
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    best = np.pad(best, ((0, 0), (0, 1)))
    recall = true / num_boxes
    at = np.stack([np.searchsorted(row, RECALLS) for row in recall])
    return float(np.take_along_axis(best, at, 1).mean())


def resample_maps(
    runs: Sequence[Sequence[ClassMatches]],
    num_resamples: int,
    seed: int = 0,
    groups: Sequence[ndarray] = (ALL_IMAGES,),
) -> ndarray:
    """mAP of each detector on the same resamples of the images.

    Args:
        runs: each detector's matches, of one annotation file.
        num_resamples: R, how many.
        seed: of the draws.
        groups: of images, each [N], 1 for those that belong to it and 0 for others; or [1].

    Returns:
        [len(runs), len(groups), R].
    """
    rng = np.random.default_rng(seed)
    num_images = len(runs[0][0].num_boxes)
    maps = np.empty((len(runs), len(groups), num_resamples))
    for resample in range(num_resamples):
        times = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
        maps[:, :, resample] = [
            [mean_average_precision(classes, times * group) for group in groups] for classes in runs
        ]
    return maps


def difference_interval(maps: ndarray, baseline: ndarray, seed: int = 0) -> tuple[float, float]:
    """Where the difference of two ways to train lies, by resampled images and seeds, to 95 percent.

    Seeds are resampled too, in pairs and apart from the images. Both are percentiles' intervals,
    which are too short where few seeds vary much: see `benchmarks.intervals`.

    Args:
        maps, baseline: [S, R], of S seeds (the same in both) on R resamples.

    Returns:
        Lower and upper end.
    """
    differences = maps - baseline
    num_seeds, num_resamples = differences.shape
    rng = np.random.default_rng(seed)
    seeds = rng.integers(num_seeds, size=(num_seeds, num_resamples))
    means = np.take_along_axis(differences, seeds, 0).mean(0)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return float(low), float(high)
