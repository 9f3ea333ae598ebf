"""Learning curves from the log that mmengine writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy import ndarray

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

# twenty curves that differ: ten colours solid, then dashed
LINES = plt.cycler(linestyle=['-', '--']) * plt.cycler(color=plt.get_cmap('tab10').colors)

# all that a validation logs which detected nothing
NOTHING_MEASURED = {'data_time', 'time', 'step'}


def read_scalars(log: Path, key: str, beside: str | None = None) -> tuple[list[float], list[float]]:
    """Steps and values of one scalar, such as 'loss' or 'coco/bbox_mAP', in the order of steps.

    Args:
        log: `vis_data/scalars.json` of a run, one json object a line; or a work_dir, whose runs
            are one training with interruptions. A step that was logged twice counts as it was
            last.
        key: of the scalar. Of COCO's figures, a validation that detected nothing has 0.
        beside: only where this one was logged too: 'lr' marks training, which has a 'time' as
            validation has one.

    Raises:
        ValueError: the log does not hold the scalar.
    """
    files = sorted(log.glob('*/vis_data/scalars.json')) if log.is_dir() else [log]
    records = [record for file in files for record in _read_records(file)]
    if key.startswith('coco/'):
        records = [{key: 0.0, **r} if set(r) <= NOTHING_MEASURED else r for r in records]
    wanted = {key, beside or key}
    found = {record['step']: record[key] for record in records if wanted <= set(record)}
    if not found:
        raise ValueError(f'{log} has no scalar {key!r}')
    steps = sorted(found)
    return steps, [found[step] for step in steps]


def _read_records(file: Path) -> list[dict]:
    records = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # a line that a full disk cut off
            continue
    return records


def training_seconds(work_dir: Path, iterations: int | None = None) -> float:
    """Time that a work_dir's training steps took, of all its runs; validations do not count.

    Each logged time, the mean of the steps before it, stands for the steps since the last one, and
    the last one for those after it, too.

    Args:
        work_dir: of a training that came to its end.
        iterations: its length; None is that of its epochs, whose steps the log tells from the
            second epoch on.
    """
    steps, values = read_scalars(work_dir, 'time', beside='lr')
    total = _steps_of_epochs(work_dir) if iterations is None else iterations
    ends = [*steps[:-1], max(steps[-1], total)]
    return float(np.dot(np.diff(ends, prepend=0), values))


def _steps_of_epochs(work_dir: Path) -> int:
    """Steps up to the end of the last epoch that is logged; 0 where only one is, or none."""
    try:
        steps, epochs = read_scalars(work_dir, 'epoch', beside='lr')
    except ValueError:  # by log_processor.by_epoch=False
        return 0
    first_steps = dict(zip(epochs[::-1], steps[::-1]))
    first, last = min(epochs), max(epochs)
    if first == last:
        return 0
    return last * (first_steps[last] - first_steps[first]) // (last - first)


def plot_curves(
    logs: Sequence[Path | Sequence[Path]],
    keys: Sequence[str],
    out: Path,
    labels: Sequence[str] | None = None,
    xlabel: str = 'step',
) -> Path:
    """Draws scalars of one or several logs over their steps into a PNG.

    Args:
        logs: as in `read_scalars`; one curve a key for each. Several in the place of one, such as
            a training's seeds, are their mean with a band from the least to the greatest.
        keys: scalars to draw.
        out: the PNG; its folder must exist.
        labels: one a log, in front of the keys in the legend; a single key names the axis.
    """
    figure, axes = plt.subplots(figsize=(9, 4.5), layout='constrained')
    axes.set_prop_cycle(LINES)
    only_key = bool(labels) and len(keys) == 1
    if only_key:
        axes.set_ylabel(keys[0])
    for log, label in zip(logs, labels or [''] * len(logs)):
        for key in keys:
            steps, values = _read_alike([log] if isinstance(log, str | Path) else log, key)
            name = label if only_key else f'{label} {key}'.strip()
            (line,) = axes.plot(steps, values.mean(0), marker='.', label=name)
            if len(values) > 1:
                axes.fill_between(
                    steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, lw=0
                )
    axes.set_xlabel(xlabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right upper')
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _read_alike(logs: Sequence[Path], key: str) -> tuple[list[float], ndarray]:
    """The steps that all logs have, [S], and each log's values there, [len(logs), S]."""
    found = [dict(zip(*read_scalars(Path(log), key))) for log in logs]
    steps = sorted(set.intersection(*map(set, found)))
    return steps, np.array([[values[step] for step in steps] for values in found])
