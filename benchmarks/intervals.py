"""How often a study's 95 percent interval holds the true difference.

    python -m benchmarks.intervals

Trainings are drawn whose true difference is 0: each seed's own deviation is as many times that of
the set of images as a row says, both normal. docs/study.md has what comes of it.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from condconv_det.analysis.bootstrap import difference_interval

RATIOS = (0, 1, 4)
SEEDS = (3, 5, 10)
RESAMPLES = 1000


def coverage(ratio: float, num_seeds: int, trials: int) -> float:
    """Part of the studies whose interval holds 0.

    Args:
        ratio: standard deviation of a seed's difference, in those of the images'.
        num_seeds: of a study.
        trials: how many studies.
    """
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(trials):
        of_images = rng.normal()  # which all seeds have in common
        of_seeds = rng.normal(0, ratio, num_seeds)
        resampled = rng.normal(size=RESAMPLES)
        differences = of_images + of_seeds[:, None] + resampled
        low, high = difference_interval(differences, np.zeros_like(differences), seed=trial)
        held += low <= 0 <= high
    return held / trials


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--trials', type=int, default=2000, help='(%(default)s)')
    args = parser.parse_args(argv)
    print(f'| seeds vary, times images | {" | ".join(f"{n} seeds" for n in SEEDS)} |')
    print('|---' * (1 + len(SEEDS)) + '|')
    for ratio in RATIOS:
        cells = [f'{coverage(ratio, num_seeds, args.trials):.2f}' for num_seeds in SEEDS]
        print(f'| {ratio} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
