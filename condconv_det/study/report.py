"""A study's table and learning curves."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from condconv_det.analysis.bootstrap import (
    ClassMatches,
    difference_interval,
    grouped_map,
    match_detections,
    resample_maps,
)
from condconv_det.analysis.cost import build_network, image_size, measure_config
from condconv_det.analysis.curves import plot_curves, training_seconds
from condconv_det.analysis.interleave import interleave
from condconv_det.weights.files import written_whole

from .plan import SPLITS, Arm, Study
from .runs import Run

TIMED_ROUNDS = 20
CURVES = 'val_mAP.png'


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


@dataclass(frozen=True)
class Row:
    """What a study says about one arm.

    Args:
        arm, baseline: names.
        maps: mAP of each seed that is done, by split.
        groups: mAP of each group of images, the mean over the seeds, by split.
        differences: by split; None for a baseline of its own and where no seed has both.
        parameters, multiply_adds: of the network and one image.
        image_seconds: see `time_per_image`.
        training_seconds: of the steps of one training, the mean over seeds.
    """

    arm: str
    baseline: str
    maps: dict[str, dict[int, float]]
    groups: dict[str, dict[str, float]]
    differences: dict[str, Difference | None]
    parameters: int
    multiply_adds: int
    image_seconds: float
    training_seconds: float


@dataclass(frozen=True)
class Results:
    """What a study found.

    Args:
        baseline, seeds, length, unit: the study's.
        arms: names of all.
        rows: of the arms of which a run is done.
    """

    baseline: str
    seeds: list[int]
    length: int
    unit: str
    arms: list[str]
    rows: list[Row]

    def write(self, path: Path) -> None:
        """Writes a JSON file, whole or not at all."""
        with written_whole(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + '\n')

    @classmethod
    def fromfile(cls, path: Path) -> 'Results':
        """Reads what `write` wrote."""
        content = json.loads(path.read_text())
        rows = []
        for row in content.pop('rows'):
            row['maps'] = {
                split: {int(seed): value for seed, value in maps.items()}
                for split, maps in row['maps'].items()
            }
            row['differences'] = {
                split: found and Difference(**found) for split, found in row['differences'].items()
            }
            rows.append(Row(**row))
        return cls(rows=rows, **content)


def time_per_image(arms: Sequence[Arm], rounds: int = TIMED_ROUNDS) -> dict[str, float]:
    """Seconds that each arm's network takes for one image, on one thread of this process.

    The median over rounds in which the arms take turns, so that a busy machine slows all alike. The
    network alone runs, in float32 on the CPU, from the image to the head's outputs; boxes are not
    decoded or suppressed, since that depends on what was learned.
    """
    calls = {}
    for arm in arms:
        network, inputs = build_network(arm.cfg)
        image = torch.rand(1, 3, *image_size(arm.cfg))
        calls[arm.name] = lambda network=network.eval(), x=image, y=inputs: network(x, **y)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            times = interleave(calls, rounds)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


class Found(NamedTuple):
    """What runs, by arm and seed, reach on a split.

    Args:
        maps: mAP.
        groups: mAP of each group of images.
        resampled: mAP of each resample of the images.
    """

    maps: dict[tuple[str, int], float]
    groups: dict[tuple[str, int], dict[str, float]]
    resampled: dict[tuple[str, int], ndarray]


def measure(study: Study, done: Sequence[Run], split: str, num_resamples: int) -> Found:
    """What runs that are done reach on a split; arms on the same images share their resamples."""
    found = Found({}, {}, {})
    for arms in _on_one_set(study, split):
        matches = {
            (run.arm, run.seed): _match(study.arms[run.arm], run, split)
            for run in done
            if run.arm in arms
        }
        groups = study.arms[arms[0]].groups(split)
        whole = list(groups.values()) or None
        for key, of_run in matches.items():
            found.maps[key] = _map(of_run, whole)
            found.groups[key] = {name: _map(of_run, [group]) for name, group in groups.items()}
        if matches:
            drawn = resample_maps(list(matches.values()), num_resamples, groups=whole)
            found.resampled.update(zip(matches, drawn))
    return found


def compare(study: Study, runs: Sequence[Run], num_resamples: int) -> Results:
    """Compares a study's arms by the runs that are done."""
    done = [run for run in runs if run.is_done]
    found = {split: measure(study, done, split, num_resamples) for split in SPLITS}
    # one that never trained may not even build
    arms = [arm for arm in study.arms.values() if any(run.arm == arm.name for run in done)]
    image_seconds = time_per_image(arms)
    rows = []
    for arm in arms:
        cost = measure_config(arm.cfg)
        of_arm = [run for run in done if run.arm == arm.name]
        seeds = [run.seed for run in of_arm]
        rows.append(
            Row(
                arm.name,
                arm.baseline,
                {s: {seed: found[s].maps[arm.name, seed] for seed in seeds} for s in SPLITS},
                {s: _means([found[s].groups[arm.name, seed] for seed in seeds]) for s in SPLITS},
                {s: _difference(arm, study.seeds, found[s]) for s in SPLITS},
                cost.parameters,
                cost.multiply_adds,
                image_seconds[arm.name],
                statistics.mean(training_seconds(run.work_dir) for run in of_arm),
            )
        )
    return Results(
        study.baseline, list(study.seeds), study.length, study.unit, list(study.arms), rows
    )


def _means(of_seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(maps[name] for maps in of_seeds) for name in of_seeds[0]}


def _difference(arm: Arm, seeds: Sequence[int], found: Found) -> Difference | None:
    maps = found.maps
    pairs = [((arm.name, seed), (arm.baseline, seed)) for seed in seeds]
    pairs = [(ours, theirs) for ours, theirs in pairs if ours in maps and theirs in maps]
    if arm.name == arm.baseline or not pairs:
        return None
    mean = statistics.mean(maps[ours] - maps[theirs] for ours, theirs in pairs)
    ours, theirs = (np.stack([found.resampled[key] for key in keys]) for keys in zip(*pairs))
    return Difference(mean, *difference_interval(ours, theirs), len(pairs))


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


def _map(matches: Sequence[ClassMatches], groups: Sequence[ndarray] | None) -> float:
    return grouped_map(matches, np.ones(len(matches[0].num_boxes), int), groups)


def to_markdown(results: Results) -> str:
    """The table; says below it what is missing."""
    titles = ['arm', *(f'{split} mAP' for split in SPLITS)]
    titles += [f'{split}, difference to {results.baseline}' for split in SPLITS]
    titles += ['parameters', 'multiply-adds', 'time per image', 'training']
    lines = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
    for row in results.rows:
        cells = [row.arm]
        cells += [_mean_and_deviation(list(row.maps[split].values())) for split in SPLITS]
        for split in SPLITS:
            difference = row.differences[split]
            cell = _signed(difference)
            if difference and row.baseline != results.baseline:
                cell += f' to {row.baseline}'
            if difference and difference.seeds < len(results.seeds):
                cell += f' ({_count(difference.seeds, "seeds")})'
            cells.append(cell)
        cells += [f'{row.parameters / 1e6:.1f} M', f'{row.multiply_adds / 1e6:.0f} M']
        cells.append(f'{1e3 * row.image_seconds:.1f} ms')
        cells.append(f'{row.training_seconds / 60:.1f} min')
        lines.append(f'| {" | ".join(cells)} |')
    lines += ['', _how_it_was_measured(results)]
    done = {row.arm: row.maps[SPLITS[0]] for row in results.rows}
    for arm in results.arms:
        missing = [str(seed) for seed in results.seeds if seed not in done.get(arm, {})]
        if missing:
            lines.append(f'\nMissing: {arm}, seed {", ".join(missing)}.')
    return '\n'.join(lines) + '\n'


def _how_it_was_measured(results: Results) -> str:
    length = _count(results.length, results.unit)
    interval = 'In brackets: 95 percent interval of the difference, by a bootstrap over images'
    if len(results.seeds) == 1:
        return f'{length}, seed {results.seeds[0]}. {interval}; of other seeds it says nothing.'
    seeds = {found.seeds for row in results.rows for found in row.differences.values() if found}
    of_one = '; of one seed, over images alone' if 1 in seeds else ''
    return (
        f'{length}, seeds {", ".join(map(str, results.seeds))}. mAP: mean ± standard deviation '
        f'over the seeds. {interval} and seeds{of_one}.'
    )


def _count(number: int, unit: str) -> str:
    return f'{number} {unit.removesuffix("s") if number == 1 else unit}'


def groups_to_markdown(results: Results, split: str) -> str:
    """A table of each group's mAP, an arm a column; empty where images have no groups."""
    groups = list(dict.fromkeys(group for row in results.rows for group in row.groups[split]))
    if not groups:
        return ''
    titles = [f'{split} mAP', *(row.arm for row in results.rows)]
    lines = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
    for group in groups:
        maps = [row.groups[split].get(group) for row in results.rows]
        cells = [group, *('' if value is None else f'{value:.3f}' for value in maps)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.3f}{deviation}'


def _signed(difference: Difference | None) -> str:
    if difference is None:
        return ''
    return f'{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]'


def write_report(
    study: Study, runs: Sequence[Run], out: Path, num_resamples: int
) -> tuple[str, list[str]]:
    """Writes results.md, results.json and, if a run is done, val_mAP.png into a study's folder.

    Returns:
        The table, and the names of the files.
    """
    results = compare(study, runs, num_resamples)
    results.write(out / 'results.json')
    table = to_markdown(results)
    of_groups = groups_to_markdown(results, 'test')
    with written_whole(out / 'results.md') as partial:
        partial.write_text('\n'.join(filter(None, [table, of_groups])))
    files = ['results.md', 'results.json']
    work_dirs = {
        row.arm: [run.work_dir for run in runs if run.arm == row.arm and run.is_done]
        for row in results.rows
    }
    if not work_dirs:
        return table, files
    with written_whole(out / CURVES) as partial:
        plot_curves(
            list(work_dirs.values()),
            [next(iter(study.arms.values())).metric],
            partial,
            list(work_dirs),
            xlabel=f'{study.unit} (validation set)',
        )
    return table, [*files, CURVES]
