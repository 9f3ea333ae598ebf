"""Learning curves from the log that mmengine writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402


def read_scalars(log: Path, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one scalar, such as 'loss' or 'coco/bbox_mAP', in the order of steps.

    Args:
        log: `vis_data/scalars.json` of a run, one json object a line; or a work_dir, whose runs
            are one training with interruptions. A step that was logged twice counts as it was
            last.

    Raises:
        ValueError: the log does not hold the scalar.
    """
    files = sorted(log.glob('*/vis_data/scalars.json')) if log.is_dir() else [log]
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    found = {record['step']: record[key] for record in records if key in record}
    if not found:
        raise ValueError(f'{log} has no scalar {key!r}')
    steps = sorted(found)
    return steps, [found[step] for step in steps]


def plot_curves(
    logs: Sequence[Path],
    keys: Sequence[str],
    out: Path,
    labels: Sequence[str] | None = None,
    xlabel: str = 'step',
) -> Path:
    """Draws scalars of one or several logs over their steps into a PNG.

    Args:
        logs: as in `read_scalars`; one curve a key for each.
        keys: scalars to draw.
        out: the PNG; its folder must exist.
        labels: one a log, in front of the keys in the legend.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for log, label in zip(logs, labels or [''] * len(logs)):
        for key in keys:
            steps, values = read_scalars(Path(log), key)
            axes.plot(steps, values, marker='.', label=f'{label} {key}'.strip())
    axes.set_xlabel(xlabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out
