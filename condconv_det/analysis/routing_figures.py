"""The CondConv paper's figures of routing (https://arxiv.org/abs/1904.04971, section 5).

Each function draws one PNG.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import mmcv
import numpy as np
from numpy import ndarray

from .routing import Grouping

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

MAX_ROWS = 40  # groups in a heat map
MAX_ANNOTATED = 12  # groups up to which it has numbers
MAX_SPREADS = 6  # groups whose spread is drawn
THUMBNAIL = 96  # pixels


def plot_separation(
    layers: Sequence[str],
    ratios: Mapping[str, Sequence[float]],
    chances: Mapping[str, Sequence[float]],
    out: Path,
) -> None:
    """Variance between groups over that within them, over the layers.

    Args:
        layers: in the order in which the network runs them.
        ratios, chances: by grouping, one value a layer; see `variance_ratio` and `chance_ratio`.
        out: the PNG.
    """
    figure, axes = plt.subplots(figsize=(2 + 0.3 * max(len(layers), 12), 5.5), layout='constrained')
    for name, values in ratios.items():
        (line,) = axes.plot(values, marker='.', label=f'by {name}')
        axes.plot(chances[name], ':', color=line.get_color(), label=f'by {name}, chance')
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    axes.set_ylabel('variance between / within groups')
    axes.set_yscale('log', nonpositive='clip')
    axes.grid(alpha=0.3)
    figure.legend(loc='outside upper left', ncols=4, fontsize=8)
    _save(figure, out)


def plot_mean_weights(
    weights: Mapping[str, ndarray], depths: Mapping[str, str], grouping: Grouping, out: Path
) -> None:
    """Mean routing weight of each expert in each group, one heat map a depth.

    Args:
        weights: [N, C, E] by layer.
        depths: which layers to draw, by title.
        grouping: of the N images; the 40 largest groups are drawn.
        out: the PNG.
    """
    rows = _largest(grouping, MAX_ROWS)
    figure, all_axes = plt.subplots(
        1,
        len(depths),
        figsize=(1.5 + 4 * len(depths), 1.2 + 0.3 * max(len(rows), 3)),
        layout='constrained',
        squeeze=False,
        sharey=True,
    )
    for axes, (depth, layer) in zip(all_axes[0], depths.items()):
        means = grouping.mean_weights(weights[layer])[rows]
        picture = axes.imshow(means, vmin=0, vmax=1, aspect='auto')
        if len(rows) <= MAX_ANNOTATED and means.shape[1] <= MAX_ANNOTATED:
            for (row, column), mean in np.ndenumerate(means):
                colour = 'black' if mean > 0.6 else 'white'
                axes.text(
                    column, row, f'{mean:.2f}', ha='center', va='center', size=7, color=colour
                )
        axes.set_title(f'{depth}\n{layer}', fontsize=8)
        axes.set_xticks(range(means.shape[1]))
        axes.set_xlabel('expert')
    all_axes[0, 0].set_yticks(range(len(rows)), _labels(grouping, rows), fontsize=8)
    figure.colorbar(picture, ax=all_axes, label='mean weight')
    _save(figure, out)


def plot_histograms(weights: Mapping[str, ndarray], out: Path) -> None:
    """Histogram of each layer's routing weights.

    Args:
        weights: [N, C, E] by layer.
        out: the PNG.
    """
    columns = min(5, len(weights))
    rows = -(-len(weights) // columns)
    figure, all_axes = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns, 0.4 + 1.6 * rows),
        layout='constrained',
        squeeze=False,
        sharex=True,
    )
    for axes in all_axes.flat[len(weights) :]:
        axes.remove()
    for axes in all_axes.flat[: len(weights)][-columns:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    for axes, (layer, values) in zip(all_axes.flat, weights.items()):
        axes.hist(values.ravel(), bins=40, range=(0, 1))
        axes.set_title(_two_lines(layer), fontsize=7)
        axes.set_yticks([])
    figure.supxlabel('routing weight', fontsize=9)
    _save(figure, out)


def plot_spread(
    weights: Mapping[str, ndarray], depths: Mapping[str, str], grouping: Grouping, out: Path
) -> None:
    """How far the weights of a group's images lie apart: a box plot an expert, a row a group.

    Boxes hold the middle half of the images, whiskers go to the 5th and 95th percentile.

    Args:
        weights: [N, C, E] by layer.
        depths: which layers to draw, by title.
        grouping: of the N images; the 6 largest groups are drawn.
        out: the PNG.
    """
    groups = _largest(grouping, MAX_SPREADS)
    figure, all_axes = plt.subplots(
        len(groups),
        len(depths),
        figsize=(1 + 4 * len(depths), 0.6 + 1.4 * len(groups)),
        layout='constrained',
        squeeze=False,
        sharey=True,
        sharex='col',
    )
    for row, (group, label) in enumerate(zip(groups, _labels(grouping, groups))):
        for axes, (depth, layer) in zip(all_axes[row], depths.items()):
            values = weights[layer][grouping.images(group)]
            values = values.reshape(-1, values.shape[-1])
            experts = range(values.shape[1])
            axes.boxplot(
                values, positions=experts, whis=(5, 95), showfliers=False, manage_ticks=False
            )
            axes.set_xticks(experts)
            axes.set_ylim(-0.02, 1.02)
            if row == 0:
                axes.set_title(f'{depth}\n{layer}', fontsize=8)
        all_axes[row, 0].set_ylabel(label, fontsize=8)
    for axes in all_axes[-1]:
        axes.set_xlabel('expert')
    _save(figure, out)


def draw_contact_sheet(
    images: Sequence[Sequence[Path]], captions: Sequence[Sequence[str]], out: Path
) -> None:
    """Images in rows, a row an expert.

    Args:
        images: files, the same number in each row.
        captions: one an image.
        out: the PNG.
    """
    dpi, margin, caption = 100, 60, 16
    rows, columns = len(images), len(images[0])
    height, width = rows * (THUMBNAIL + caption), columns * THUMBNAIL + margin
    sheet = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    for row in range(rows):
        top = row * (THUMBNAIL + caption)
        axes.text(4, top + THUMBNAIL / 2, f'expert {row}', va='center', fontsize=8)
        for column in range(columns):
            left = margin + column * THUMBNAIL
            thumbnail = _thumbnail(images[row][column])
            sheet[top : top + THUMBNAIL, left : left + THUMBNAIL] = thumbnail
            axes.text(
                left + THUMBNAIL / 2,
                top + THUMBNAIL + caption / 2,
                captions[row][column],
                ha='center',
                va='center',
                fontsize=7,
            )
    axes.imshow(sheet)
    axes.axis('off')
    figure.savefig(out, dpi=dpi)


def _thumbnail(image: Path) -> ndarray:
    """The whole image, scaled to the bottom of a square, with a white frame."""
    picture = mmcv.imread(image, channel_order='rgb')
    scaled = mmcv.rescale_size(picture.shape[1::-1], (THUMBNAIL - 4, THUMBNAIL - 4))
    picture = mmcv.imresize(picture, [max(1, side) for side in scaled])  # a strip keeps a pixel
    square = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    height, width = picture.shape[:2]
    top, left = THUMBNAIL - 2 - height, (THUMBNAIL - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


def _largest(grouping: Grouping, most: int) -> list[int]:
    """Indices of a grouping's largest groups, in their own order."""
    return sorted(np.argsort(-grouping.counts, kind='stable')[:most].tolist())


def _labels(grouping: Grouping, groups: Sequence[int]) -> list[str]:
    return [f'{grouping.groups[group]} ({grouping.counts[group]})' for group in groups]


def _two_lines(layer: str) -> str:
    """A layer's name, with its first two parts on a line of their own."""
    parts = layer.split('.')
    return '.'.join(parts[:2]) + '\n' + '.'.join(parts[2:])


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out, dpi=100)
    plt.close(figure)
