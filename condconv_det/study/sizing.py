"""How long to train on a data set, and with which anchors, from its number of images and boxes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

INPUT_SIZE = 300  # pixels a side, of configs/_base_/own/data.py
LEAST_STEPS = 1000
SMALLEST, LARGEST = 0.05, 0.95  # quantiles of the boxes' sizes between which anchors lie
BACKBONE_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how often to look.

    Args:
        batch: images a step.
        steps: of an epoch.
        epochs: of the training.
        interval: epochs from one validation to the next.
        momentum: of batch norms' running statistics.
    """

    batch: int
    steps: int
    epochs: int
    interval: int
    momentum: float


def plan_schedule(num_images: int) -> Schedule:
    """The schedule for so many training images.

    `LEAST_STEPS`, which small detectors need from scratch however few the images are, or 30 epochs
    where these are more, and ten validations. Running statistics look back over half an
    epoch, but over 10 batches at least and 33 at most.
    """
    batch = 8 if num_images < 400 else 16
    steps = math.ceil(num_images / batch)
    epochs = 10 * max(3, math.ceil(LEAST_STEPS / steps / 10))
    return Schedule(
        batch,
        steps,
        epochs,
        interval=epochs // 10,
        momentum=round(min(0.1, max(0.03, 2 / steps)), 2),
    )


@dataclass(frozen=True)
class Anchors:
    """Where anchors lie.

    Args:
        strides: of the levels, pixels: four or more, each twice the one before it.
        smallest, largest: quantiles of the boxes' sizes, sides of squares of their areas at 300
            pixels.
    """

    strides: tuple[int, ...]
    smallest: float
    largest: float

    @property
    def top(self) -> float:
        """Size for the last level, if sizes rise evenly over the levels.

        Then the largest boxes are met on a level whose stride is at most 0.6 of their sides.
        """
        level = max(1, sum(stride <= 0.6 * self.largest for stride in self.strides) - 1)
        # boxes of one size, too, need anchors of several
        rise = max(self.largest - self.smallest, 0.5 * self.smallest) / level
        return min(self.smallest + rise * (len(self.strides) - 1), LARGEST * INPUT_SIZE)


def place_anchors(sides: ndarray) -> Anchors:
    """The levels and sizes of anchors for boxes.

    The first stride is 16 where the smallest boxes have three cells along their sides there, else
    8, and 4 where they are below 12 pixels. The levels reach stride 64, and 128 where it is at
    most 0.6 of the largest boxes' sides.

    Args:
        sides: of boxes, as parts of their image's width and height, [N, 2].
    """
    smallest, largest = np.quantile(_pixels(sides), [SMALLEST, LARGEST]).tolist()
    first = 16 if smallest >= 3 * 16 else 8 if smallest >= 12 else 4
    strides = [stride for stride in (*BACKBONE_STRIDES, 64) if stride >= first]
    return Anchors((*strides, *[128] * (0.6 * largest >= 128)), smallest, largest)


def part_below_a_cell(sides: ndarray) -> float:
    """The part of boxes that are smaller than a cell of the finest map.

    Args:
        sides: as in `place_anchors`.
    """
    return float((_pixels(sides) < BACKBONE_STRIDES[0]).mean())


def _pixels(sides: ndarray) -> ndarray:
    """Sides of squares of the boxes' areas, [N]."""
    return INPUT_SIZE * np.sqrt(sides.prod(1))
