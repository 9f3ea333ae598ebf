"""A page about a network's routing: figures, numbers, and what they say."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from condconv_det.data.whole_files import folder_written_whole

from .routing import chance_ratio, summarize, variance_ratio
from .routing_figures import (
    draw_contact_sheet,
    plot_histograms,
    plot_mean_weights,
    plot_separation,
    plot_spread,
)
from .routing_records import RoutingRecords, record_routing

PAGE, NUMBERS = 'index.html', 'summary.json'
SHEET_COLUMNS = 8
STYLE = """
body { font: 15px sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
p, figcaption { overflow-wrap: anywhere }
div { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: 2px 10px; text-align: right }
th:first-child, td:first-child { text-align: left }
tr:nth-child(even) { background: #f2f2f2 }
img { max-width: 100% }
figure { margin: 2em 0 }
"""
LEGEND = (
    "Entropy of the experts' shares in an image's weight: log2 of their number if all are alike, 0 "
    "for one alone. Deviation of an expert's weight over the images: 0 if all get the same kernel. "
    'Saturated: weights within 0.05 of 0 or 1. Dead: less than a tenth of an even share for every '
    'image.'
)
RATIO_LEGEND = (
    ' Between / within: variance of the weights between groups of images over that within them; in '
    'brackets the largest of 100 tries with the groups dealt out at random.'
)


def analyze_routing(
    cfg: Config, checkpoint: Path | str, out: Path, group_by: str | None = None
) -> dict[str, Any]:
    """Runs a network over its config's test set and writes a folder that shows its routing.

    The folder holds `index.html`, which needs no other file, its figures as PNG, and
    `summary.json`. It appears at once when all is written.

    Args:
        cfg, checkpoint, group_by: see `record_routing`.
        out: a folder that does not exist or is empty.

    Returns:
        What is in `summary.json`.

    Raises:
        FileExistsError: `out` holds anything, or is a file.
        OSError: `out` cannot be written.
        ValueError, FileNotFoundError, CheckpointError: see `record_routing`.
    """
    with folder_written_whole(out) as partial:  # before the network runs
        records = record_routing(cfg, checkpoint, group_by)
        title = f'{Path(cfg.filename or "config").stem}, {Path(checkpoint).name}'
        summary = write_report(records, title, partial)
    return summary


def write_report(records: RoutingRecords, title: str, folder: Path) -> dict[str, Any]:
    """Writes the page, its figures and the numbers into a folder that exists; returns these."""
    depths = pick_depths(list(records.weights))
    compared = [grouping for grouping in records.groupings if grouping.not_compared is None]
    layers = {}
    for name, weights in records.weights.items():
        layers[name] = dict(
            experts=weights.shape[-1],
            **asdict(summarize(weights)),
            variance_ratio={g.name: variance_ratio(weights, g.member) for g in compared},
            chance_ratio={g.name: chance_ratio(weights, g.member) for g in compared},
            mean_weights={
                g.name: dict(zip(g.groups, g.mean_weights(weights).tolist()))
                for g in records.groupings
            },
        )
    summary = dict(
        title=title,
        images=len(records.images),
        groups={g.name: dict(zip(g.groups, g.counts.tolist())) for g in records.groupings},
        depths=depths,
        findings=[
            f'Not compared by {g.name}: {g.not_compared}.'
            if g.not_compared
            else describe_separation(g.name, layers)
            for g in records.groupings
        ],
        layers=layers,
        most_exciting=_most_exciting(records, depths),
        left_out=records.left_out,
    )
    figures = _draw(records, summary, folder)
    (folder / NUMBERS).write_text(json.dumps(summary, indent=1, allow_nan=False))
    (folder / PAGE).write_text(_page(summary, figures, folder), encoding='utf-8')
    return summary


def pick_depths(layers: list[str]) -> dict[str, str]:
    """The first, the middle and the last layer; fewer if there are fewer."""
    picked = dict(early=layers[0], middle=layers[(len(layers) - 1) // 2], late=layers[-1])
    return {depth: name for depth, name in picked.items() if depth == 'early' or name != layers[0]}


def describe_separation(grouping: str, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """What the layers' variance ratios say of a grouping, in words.

    Args:
        grouping: its name.
        layers: in order, each with `variance_ratio` and `chance_ratio` by grouping.
    """
    ratios = {name: layer['variance_ratio'][grouping] for name, layer in layers.items()}
    chances = {name: layer['chance_ratio'][grouping] for name, layer in layers.items()}
    apart = [name for name in ratios if ratios[name] > chances[name]]
    first, last, peak = next(iter(ratios)), [*ratios][-1], max(ratios, key=ratios.__getitem__)
    if not apart:
        verdict = f'No layer tells images apart by {grouping}'
    elif first in apart and last in apart:
        better = 'late' if ratios[last] > ratios[first] else 'early'
        verdict = f'Early and late layers tell images apart by {grouping}, {better} ones better'
    elif last in apart:
        verdict = f'Late layers tell images apart by {grouping}, early ones do not'
    elif first in apart:
        verdict = f'Early layers tell images apart by {grouping}, late ones do not'
    else:
        verdict = f'Layers between tell images apart by {grouping}, early and late ones do not'
    shown = ', '.join(
        f'{ratios[name]:.3f} in {name} (chance up to {chances[name]:.3f})'
        for name in dict.fromkeys([first, last, peak])
    )
    return (
        f'{verdict}: {len(apart)} of {len(ratios)} above chance. Variance between over within '
        f'groups is {shown}; the highest is in {peak}.'
    )


def _most_exciting(records: RoutingRecords, depths: Mapping[str, str]) -> dict[str, Any]:
    """For each expert of the layers at each depth, images and weights, the largest first."""
    found = {}
    for layer in depths.values():
        weights = records.weights[layer].max(1)
        order = np.argsort(-weights, axis=0, kind='stable')[:SHEET_COLUMNS]
        found[layer] = [
            [dict(image=str(records.images[i]), weight=float(weights[i, expert])) for i in best]
            for expert, best in enumerate(order.T)
        ]
    return found


def _draw(records: RoutingRecords, summary: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draws all figures; returns what each shows, by file name, in the page's order."""
    layers, depths = summary['layers'], summary['depths']
    figures = {}
    names = _compared(layers)
    if names:
        plot_separation(
            list(layers),
            {name: [layer['variance_ratio'][name] for layer in layers.values()] for name in names},
            {name: [layer['chance_ratio'][name] for layer in layers.values()] for name in names},
            folder / 'separation.png',
        )
        figures['separation.png'] = (
            'How well each layer tells groups apart. Above its dotted line, a layer routes images '
            'by what they hold; below it, groups dealt out at random do as well.'
        )
    for grouping in records.groupings:
        file = f'mean_weights_{grouping.name}.png'
        plot_mean_weights(records.weights, depths, grouping, folder / file)
        figures[file] = (
            f'Mean routing weight of each expert over the images of each {grouping.name}.'
        )
        if grouping.name in names:
            figures[file] += (
                ' Rows alike: the layer mixes the same kernel for all; rows that differ: one for '
                'each.'
            )
    plot_histograms(records.weights, folder / 'histograms.png')
    figures['histograms.png'] = (
        'Routing weights of each layer. Two peaks at 0 and 1: experts are switched; one peak: '
        'they are blended.'
    )
    for grouping in records.groupings:
        file = f'spread_{grouping.name}.png'
        plot_spread(records.weights, depths, grouping, folder / file)
        figures[file] = (
            f'Spread within each {grouping.name}: boxes hold the middle half of its images, '
            'whiskers the middle nine tenths.'
        )
        if grouping.name in names:
            figures[file] += ' Short boxes: the group decides; long ones: the image.'
    for depth, layer in depths.items():
        rows = summary['most_exciting'][layer]
        file = f'experts_{depth}.png'
        draw_contact_sheet(
            [[Path(best['image']) for best in row] for row in rows],
            [[f'{best["weight"]:.3f}' for best in row] for row in rows],
            folder / file,
        )
        figures[file] = f'Images that excite each expert most, {depth} layer {layer}.'
    return figures


def _compared(layers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the groupings whose groups can be told apart."""
    return list(next(iter(layers.values()))['variance_ratio'])


def _page(summary: Mapping[str, Any], figures: Mapping[str, str], folder: Path) -> str:
    title = escape(summary['title'])
    groups = '; '.join(
        f'by {name}: ' + ', '.join(f'{group} {count}' for group, count in counts.items())
        for name, counts in summary['groups'].items()
    )
    paragraphs = [f'{summary["images"]} images, {groups}.', *summary['findings']]
    if summary['left_out']:
        paragraphs.append(
            'Left out, for their routers do not answer once for each image: '
            + ', '.join(summary['left_out'])
        )
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>Routing: {title}</title><style>{STYLE}</style></head><body>',
        f'<h1>Routing</h1><p>{title}</p>',
        *(f'<p>{escape(paragraph)}</p>' for paragraph in paragraphs),
        _table(summary),
        f'<p>{LEGEND}{RATIO_LEGEND if _compared(summary["layers"]) else ""}</p>',
    ]
    for file, caption in figures.items():
        data = base64.b64encode((folder / file).read_bytes()).decode()
        parts.append(
            f'<figure><figcaption>{escape(caption)}</figcaption>'
            f'<img alt="{escape(file)}" src="data:image/png;base64,{data}"></figure>'
        )
    return '\n'.join([*parts, '</body></html>\n'])


def _table(summary: Mapping[str, Any]) -> str:
    names = _compared(summary['layers'])
    head = ['layer', 'experts', 'entropy, bits', 'deviation', 'saturated', 'dead experts']
    head += [f'between / within, by {name} (chance)' for name in names]
    lines = ['<div><table><tr>' + ''.join(f'<th>{escape(cell)}</th>' for cell in head) + '</tr>']
    for layer, found in summary['layers'].items():
        row = [
            layer,
            str(found['experts']),
            f'{found["entropy"]:.2f}',
            f'{found["deviation"]:.3f}',
            f'{found["saturated"]:.1%}',
            ', '.join(map(str, found['dead'])) or 'none',
        ]
        for name in names:
            ratio, chance = found['variance_ratio'][name], found['chance_ratio'][name]
            row.append(f'{ratio:.3f} ({chance:.3f})')
        lines.append('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>')
    return '\n'.join([*lines, '</table></div>'])
