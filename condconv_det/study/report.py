"""A study's table and learning curves."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from condconv_det.analysis.bootstrap import mean_over_groups
from condconv_det.analysis.cost import build_network, measure_config
from condconv_det.analysis.curves import plot_curves, training_seconds
from condconv_det.analysis.interleave import interleave
from condconv_det.data.whole_files import written_whole

from .differences import Difference, find_differences, measure
from .plan import SPLITS, Arm, Study
from .runs import Run

TIMED_ROUNDS = 20
CURVES = 'val_mAP.png'


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
        group_differences: in each group of images alone, by split.
        differences_without: in the mean of all other groups, by split and the group left out.
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
    # older results.json lack these
    group_differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    differences_without: dict[str, dict[str, Difference]] = field(default_factory=dict)


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
            for name in ('group_differences', 'differences_without'):
                row[name] = {
                    split: {group: Difference(**found) for group, found in by_group.items()}
                    for split, by_group in row.get(name, {}).items()
                }
            rows.append(Row(**row))
        return cls(rows=rows, **content)


def time_per_image(arms: Sequence[Arm], rounds: int = TIMED_ROUNDS) -> dict[str, float]:
    """Seconds that each arm's network takes for one image, on one thread of this process.

    The median over rounds in which the arms take turns, so that a busy machine slows all alike. The
    network alone runs, in float32 on the CPU, from the image to the head's outputs; boxes are not
    decoded or suppressed, since that depends on what was learned, but for CondInst and YOLACT,
    whose masks need boxes.
    """
    calls = {}
    for arm in arms:
        network, image, inputs = build_network(arm.cfg)
        image.uniform_()
        calls[arm.name] = lambda network=network.eval(), x=image, y=inputs: network(x, **y)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            times = interleave(calls, rounds)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


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
        maps = {s: {run.seed: found[s].maps[arm.name, run.seed] for run in of_arm} for s in SPLITS}
        differences = {s: find_differences(arm, study.seeds, found[s]) for s in SPLITS}
        rows.append(
            Row(
                arm.name,
                arm.baseline,
                {s: {seed: _mean(of_run) for seed, of_run in maps[s].items()} for s in SPLITS},
                {s: _means_of_groups(list(maps[s].values())) for s in SPLITS},
                {s: differences[s].all for s in SPLITS},
                cost.parameters,
                cost.multiply_adds,
                image_seconds[arm.name],
                statistics.mean(
                    training_seconds(run.work_dir, run.length if run.unit == 'iterations' else None)
                    for run in of_arm
                ),
                {s: differences[s].alone for s in SPLITS},
                {s: differences[s].without for s in SPLITS},
            )
        )
    return Results(
        study.baseline, list(study.seeds), study.length, study.unit, list(study.arms), rows
    )


def _mean(of_groups: dict[str | None, float]) -> float:
    return float(mean_over_groups(list(of_groups.values())))


def _means_of_groups(of_seeds: Sequence[dict[str | None, float]]) -> dict[str, float]:
    return {
        name: statistics.mean(maps[name] for maps in of_seeds)
        for name in of_seeds[0]
        if name is not None
    }


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
    columns = {
        row.arm: {group: f'{value:.3f}' for group, value in row.groups[split].items()}
        for row in results.rows
    }
    return _groups_table(f'{split} mAP', columns)


def group_differences_to_markdown(results: Results, split: str, without: bool = False) -> str:
    """A table of differences to the baselines by group, an arm a column; empty without groups.

    Args:
        without: in the mean of all groups but one. Does what an arm gains rest on this one?
    """
    columns = {}
    for row in results.rows:
        found = (row.differences_without if without else row.group_differences).get(split)
        if found:
            title = row.arm if row.baseline == results.baseline else f'{row.arm} to {row.baseline}'
            columns[title] = {group: _signed(difference) for group, difference in found.items()}
    place = 'without' if without else 'in'
    return _groups_table(f'{split}, difference to {results.baseline} {place}', columns)


def _groups_table(corner: str, columns: dict[str, dict[str, str]]) -> str:
    groups = list(dict.fromkeys(group for cells in columns.values() for group in cells))
    if not groups:
        return ''
    lines = [f'| {" | ".join([corner, *columns])} |', '|---' * (1 + len(columns)) + '|']
    for group in groups:
        cells = [cells.get(group, '') for cells in columns.values()]
        lines.append(f'| {" | ".join([group, *cells])} |')
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
    tables = [
        table,
        groups_to_markdown(results, 'test'),
        group_differences_to_markdown(results, 'test'),
        group_differences_to_markdown(results, 'test', without=True),
    ]
    with written_whole(out / 'results.md') as partial:
        partial.write_text('\n'.join(filter(None, tables)))
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
