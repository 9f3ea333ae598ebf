"""Tables, goals and chart of what benchmarks.speed has measured.

    python -m benchmarks.report work_dirs/speed/speed.json docs/measured/performance-cpu.md

writes the page, and its chart into `images` beside it.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from benchmarks.timing import ratio, spread

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

RIVALS = ('timm', 'outputs')


def label(row: dict) -> str:
    """What tells a row from others."""
    return f'{row["level"]}: {row["name"]}, {row["mode"]}, batch {row["batch"]}, {row["setting"]}'


def median(row: dict, form: str) -> float:
    return statistics.median(row['times'][form])


def to_plain(row: dict, form: str = 'ours') -> float:
    """A form's time over the plain one's, round by round."""
    return ratio(row['times'][form], row['times']['plain'])


def overhead(row: dict) -> float | None:
    """Our time beyond plain over timm's; None where timm's is not slower than plain."""
    plain, ours, rival = (median(row, form) for form in ('plain', 'ours', 'timm'))
    return (ours - plain) / (rival - plain) if rival > plain else None


def floor(row: dict) -> float:
    """Plain's time and what it takes to read the experts, see docs/measured/performance.md."""
    return median(row, 'plain') + row['expert_seconds']['ours']


def to_best_rival(row: dict) -> float:
    """Our time over that of the fastest other form that computes the same."""
    best = min((form for form in RIVALS if form in row['times']), key=lambda f: median(row, f))
    return ratio(row['times']['ours'], row['times'][best])


def growth(row: dict) -> float:
    """Time that 12 more experts add over the time it takes to read them."""
    few, many = '4 experts', '16 experts'
    read = row['expert_seconds'][many] - row['expert_seconds'][few]
    return (median(row, many) - median(row, few)) / read


def memory_to_timm(row: dict) -> float:
    return row['peak_bytes']['ours'] / row['peak_bytes']['timm']


def memory_in_experts(row: dict) -> float:
    """Our memory beyond plain's, in sizes of all experts."""
    added = row['peak_bytes']['ours'] - row['peak_bytes']['plain']
    return added / row['expert_bytes']['ours']


@dataclass(frozen=True)
class Goal:
    """An upper limit of a figure, over all rows that it is about.

    Args:
        text: names the figure.
        limit: of a row.
        figure: of a row; None if it has none.
        levels, mode, batch: of the rows; batch None is any.
    """

    text: str
    limit: Callable[[dict], float]
    figure: Callable[[dict], float | None]
    levels: Sequence[str]
    mode: str | None = None
    batch: int | None = None

    def about(self, row: dict) -> bool:
        return (
            row['level'] in self.levels
            and self.mode in (None, row['mode'])
            and self.batch in (None, row['batch'])
        )


def _training_limit(row: dict) -> float:
    return 1.25 if row['setting'] != 'float32' and row['batch'] == 128 else 1.2


NETWORKS = ('backbones', 'detectors')
GOALS = (
    Goal(
        "our overhead over plain / timm's, training a backbone",
        lambda row: 0.4,
        overhead,
        ['backbones'],
        'training',
    ),
    Goal(
        'ours / plain, training a backbone (bf16 at batch 128: 1.25)',
        _training_limit,
        to_plain,
        ['backbones'],
        'training',
    ),
    Goal(
        'ours / plain, inference of a backbone, batch 1',
        lambda row: 1.15,
        to_plain,
        ['backbones'],
        'inference',
        1,
    ),
    Goal(
        "peak memory ours / timm's, training a network",
        lambda row: 0.7,
        memory_to_timm,
        NETWORKS,
        'training',
    ),
    Goal(
        "peak memory beyond plain's / experts' size, training a network",
        lambda row: 3.0,
        memory_in_experts,
        NETWORKS,
        'training',
    ),
    Goal('ours / best other form, any layer', lambda row: 1.1, to_best_rival, ['layers']),
    Goal(
        'time added from 4 to 16 experts / time to read them',
        lambda row: 1.0,
        growth,
        ['experts'],
    ),
)


def goals_table(rows: Sequence[dict]) -> str:
    """Each goal, in how many of its rows it is met, and the row furthest from it."""
    lines = ['| goal | at most | met in | worst | where |', '|---|---|---|---|---|']
    for goal in GOALS:
        found = [(goal.figure(row), goal.limit(row), row) for row in rows if goal.about(row)]
        found = [item for item in found if item[0] is not None]
        if not found:
            lines.append(f'| {goal.text} | | not measured | | |')
            continue
        met = sum(figure <= limit for figure, limit, _ in found)
        figure, limit, row = max(found, key=lambda item: item[0] / item[1])
        lines.append(
            f'| {goal.text} | {limit:.2f} | {met} of {len(found)} | {figure:.2f} | {label(row)} |'
        )
    return '\n'.join(lines)


def summary(row: dict) -> str:
    """A row in one line."""
    forms = []
    for form in row['times']:
        compared = f' ({to_plain(row, form):.2f})' if 'plain' in row['times'] else ''
        forms.append(f'{form} {median(row, form) * 1000:.2f}{compared}')
    return f'{label(row)}: {", ".join(forms)}'


def in_order(rows: Sequence[dict]) -> list[dict]:
    """Networks and layers as they were first measured, each by mode, setting and batch."""
    found = list(dict.fromkeys((row['level'], row['name']) for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            found.index((row['level'], row['name'])),
            row['mode'],
            row['setting'],
            row['batch'],
        ),
    )


def level_table(rows: Sequence[dict]) -> str:
    """The rows of one level: milliseconds with their spread, ratios, peak memory in MB."""
    forms = list(dict.fromkeys(form for row in rows for form in row['times']))
    ratios: dict[str, Callable[[dict], float | None]] = {'added / read': growth}
    if 'plain' in forms:
        ratios = {
            'floor, ms': lambda row: floor(row) * 1000,
            'ours / plain': to_plain,
            'timm / plain': lambda row: to_plain(row, 'timm'),
            'overhead ours / timm': overhead,
        }
    head = ['', 'mode', 'batch', 'setting', *(f'{form}, ms' for form in forms), *ratios]
    head += [f'{form}, MB' for form in forms]
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for row in rows:
        cells = [row['name'], row['mode'], str(row['batch']), row['setting']]
        for form in forms:
            times = row['times'].get(form)
            cells.append(
                f'{median(row, form) * 1e3:.4g} ± {spread(times) * 1e3:.4g}' if times else ''
            )
        for figure in (figure(row) for figure in ratios.values()):
            cells.append('' if figure is None else f'{figure:.2f}')
        for form in forms:
            peak = row['peak_bytes'].get(form)
            cells.append('' if peak is None else f'{peak / 1e6:.4g}')
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def draw_chart(rows: Sequence[dict], out: Path) -> Path:
    """Draws each form's time over plain's as bars, network by network, into a PNG.

    Args:
        rows: those with a plain form.
        out: the PNG; its folder must exist.
    """
    forms = ('timm', 'ours')
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.4 * len(rows)), layout='constrained')
    for offset, form in enumerate(forms):
        heights = [offset * 0.35 + index for index in range(len(rows))]
        axes.barh(heights, [to_plain(row, form) for row in rows], 0.35, label=form)
    for index, row in enumerate(rows):
        lowest = floor(row) / median(row, 'plain')
        mark = 'plain and reading the experts' if index == 0 else None
        axes.plot([lowest] * 2, [index - 0.2, index + 0.55], color='black', label=mark)
    axes.axvline(1, color='grey', linewidth=0.8)
    axes.set_yticks(
        [index + 0.175 for index in range(len(rows))],
        [label(row).split(': ', 1)[1].removesuffix(', float32') for row in rows],
    )
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel('time / plain')
    figure.legend(loc='outside upper right', ncols=3, frameon=False)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def write_report(results: Path, page: Path) -> Path:
    """Writes the page of what was measured, and its chart into `images` beside it.

    Args:
        results: `speed.json` of benchmarks.speed.
        page: the Markdown file.
    """
    measured = json.loads(results.read_text())
    rows, machine = in_order(measured['rows']), measured['machine']
    levels = list(dict.fromkeys(row['level'] for row in rows))
    charted = [row for row in rows if row['level'] in NETWORKS] or [
        row for row in rows if row['level'] == 'layers'
    ]
    parts = [
        '# Measured time and memory of CondConv',
        f'{machine["device"]}, threads: {machine["threads"]}, PyTorch {machine["torch"]}, '
        f'timm {machine["timm"]}. Written by `python -m benchmarks.report`; how to read it: '
        '[performance.md](performance.md).',
        '\n'.join(
            f'- {run["date"]}, copies at {run["copy_bandwidth"] / 1e9:.1f} GB/s: `{run["command"]}`'
            for run in measured['runs']
        ),
        '## Goals\n' + goals_table(rows),
    ]
    if charted:
        chart = page.parent / 'images' / f'{page.stem}.png'
        chart.parent.mkdir(parents=True, exist_ok=True)
        draw_chart(charted, chart)
        parts.append(f'![Time of each form over plain](images/{chart.name})')
    for level in levels:
        table = level_table([row for row in rows if row['level'] == level])
        parts.append(f'## {level.capitalize()}\n{table}')
    page.write_text('\n\n'.join(parts) + '\n')
    return page


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('results', type=Path, help='speed.json of benchmarks.speed')
    parser.add_argument('page', type=Path, help='Markdown file')
    args = parser.parse_args()
    print(write_report(args.results, args.page))


if __name__ == '__main__':
    main()
