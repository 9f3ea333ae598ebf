"""Writes the tables of studies into the pages that quote them, and draws their differences.

A page says `<!-- KIND NAME -->` and `<!-- end -->`; what stands between is replaced by what
`docs/studies/NAME.json` holds, a study's `results.json`. KIND is `study`, or one by groups of test
images: `groups` has the mAP of each, `differences` the difference in each, `without` that in the
mean of all but it. The figure, `images/differences.png`, has what each CondConv arm differs
by from its static twin.
With --check nothing is written, and a page that is not up to date is an error.
"""

import argparse
import re
import sys
from pathlib import Path

from condconv_det.analysis.curves import plt
from condconv_det.data.whole_files import written_whole
from condconv_det.study.differences import Difference
from condconv_det.study.report import (
    Results,
    group_differences_to_markdown,
    groups_to_markdown,
    to_markdown,
)

DOCS = Path(__file__).parent
MARKED = re.compile(
    r'(<!-- (study|groups|differences|without) ([\w.-]+) -->\n).*?(<!-- end -->)', re.DOTALL
)


def filled(page: str, studies: Path) -> str:
    """A page's text with its tables as the studies' results say.

    Raises:
        FileNotFoundError: there are no results of a study that it names.
    """

    def table(match: re.Match) -> str:
        begin, kind, name, end = match.groups()
        results = Results.fromfile(studies / f'{name}.json')
        if kind == 'study':
            text = to_markdown(results)
        elif kind == 'groups':
            text = groups_to_markdown(results, 'test')
        else:
            text = group_differences_to_markdown(results, 'test', without=kind == 'without')
        return f'{begin}{text}{end}'

    return MARKED.sub(table, page)


def placement(arm: str) -> str:
    """Where an arm has its experts, by its name."""
    if arm.startswith('head'):
        return "in the head's predictors alone"
    if arm.startswith('everywhere'):
        return 'in every layer'
    return 'in late layers and the head' if 'head' in arm else 'in backbone and neck'


def found_differences(studies: dict[str, Results]) -> list[tuple[str, str, Difference]]:
    """What each CondConv arm differs by from its static baseline on test.

    Args:
        studies: results by name; arms whose names begin with `static` are static.

    Returns:
        Placement, label and difference; placements together, the largest difference of each first.
        A training that several studies share is there once.
    """
    rows = {}
    for name, results in studies.items():
        for row in results.rows:
            difference = row.differences['test']
            routed = not row.arm.startswith('static') and row.baseline.startswith('static')
            if difference and routed:
                label = f'{name}: {row.arm} ({len(row.maps["test"])})'
                rows.setdefault(difference, (placement(row.arm), label, difference))
    # sorts are stable
    by_size = sorted(rows.values(), key=lambda row: row[2].mean, reverse=True)
    return sorted(by_size, key=lambda row: row[0], reverse=True)


def draw_differences(studies: dict[str, Results], out: Path) -> None:
    """Draws them, with their intervals, into a PNG."""
    rows = found_differences(studies)
    places = list(dict.fromkeys(place for place, _, _ in rows))
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(rows)), layout='constrained')
    for place in places:
        own = [(at, found) for at, (where, _, found) in enumerate(rows) if where == place]
        axes.errorbar(
            [found.mean for _, found in own],
            [at for at, _ in own],
            xerr=[
                [found.mean - found.low for _, found in own],
                [found.high - found.mean for _, found in own],
            ],
            fmt='o',
            label=f'experts {place}',
            capsize=3,
        )
    axes.axvline(0, color='black', lw=0.8)
    axes.set_yticks(range(len(rows)), [name for _, name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel('test mAP less that of the static twin, with the 95 percent interval')
    figure.legend(loc='outside upper center', ncols=2)
    with written_whole(out) as partial:
        figure.savefig(partial, format='png', dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing, say what would be')
    args = parser.parse_args()
    outdated = []
    for page in sorted([DOCS.parent / 'README.md', *DOCS.rglob('*.md')]):
        before = page.read_text()
        now = filled(before, DOCS / 'studies')
        if now != before:
            outdated.append(page.name)
            if not args.check:
                page.write_text(now)
    if args.check and outdated:
        sys.exit(f'error: run docs/tables.py, since the tables have changed of {outdated}')
    if not args.check:
        files = sorted((DOCS / 'studies').glob('*.json'))
        found = {file.stem: Results.fromfile(file) for file in files}
        draw_differences(found, DOCS / 'images' / 'differences.png')
    print(f'{len(outdated)} pages {"would change" if args.check else "written"}')


if __name__ == '__main__':
    main()
