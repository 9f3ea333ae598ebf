"""Learning curves from the log that mmengine writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402


def read_scalars(log_file: Path, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one scalar, such as 'loss' or 'coco/bbox_mAP', in the order logged.

    Args:
        log_file: `vis_data/scalars.json` of a work_dir, one json object a line.

    Raises:
        ValueError: the log does not hold the scalar.
    """
    records = [json.loads(line) for line in log_file.read_text().splitlines()]
    found = [(record['step'], record[key]) for record in records if key in record]
    if not found:
        raise ValueError(f'{log_file} has no scalar {key!r}')
    steps, values = zip(*found)
    return list(steps), list(values)


def plot_curves(
    log_files: Sequence[Path],
    keys: Sequence[str],
    out: Path,
    labels: Sequence[str] | None = None,
    xlabel: str = 'step',
) -> Path:
    """Draws scalars of one or several logs over their steps into a PNG.

    Args:
        log_files: one curve a key for each.
        keys: scalars to draw.
        out: the PNG; its folder must exist.
        labels: one a log file, in front of the keys in the legend.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for log_file, label in zip(log_files, labels or [''] * len(log_files)):
        for key in keys:
            steps, values = read_scalars(Path(log_file), key)
            axes.plot(steps, values, marker='.', label=f'{label} {key}'.strip())
    axes.set_xlabel(xlabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out
