"""What came of the faults that faults.py tried, in words and as a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fault_list import Fault

MARKS = {'short': 'not long', 'long': 'long'}
Results = dict[str, dict[str, Any]]  # by a fault's id


def verdict(found: dict[str, Any]) -> str:
    """Of all tests that were run on a fault: 'caught', 'missed', 'error' or 'not tried'."""
    verdicts = [found[suite]['verdict'] for suite in MARKS if suite in found]
    return next((w for w in ('caught', 'error', 'missed') if w in verdicts), 'not tried')


def outcome(found: dict[str, Any]) -> str:
    """A cell of the table: the test that caught a fault, or that none did."""
    word = verdict(found)
    for suite in MARKS:
        tried = found.get(suite, {})
        if word in ('caught', 'error') and tried.get('verdict') == word:
            path, _, function = tried['by'].partition('::')
            test = f'`{Path(path).stem}::{function.split("[")[0]}`' if function else path
            note = ', '.join(filter(None, [tried['note'], 'long' if suite == 'long' else '']))
            parts = [word if word == 'error' else '', test, f'({note})' if note else '']
            return ' '.join(filter(None, parts)) or word
    return 'MISSED' if word == 'missed' else word


def totals(faults: Sequence[Fault], results: Results) -> list[list[str]]:
    """Rows of numbers: each room's and that of all."""
    rows = []
    for name in [*dict.fromkeys(fault.room for fault in faults), 'all']:
        some = [fault for fault in faults if name in (fault.room, 'all')]
        verdicts = [verdict(results.get(fault.id, {})) for fault in some]
        caught, missed = verdicts.count('caught'), verdicts.count('missed')
        numbers = len(some), caught, missed, len(some) - caught - missed
        rows.append([name, *map(str, numbers)])
    return rows


def to_markdown(
    faults: Sequence[Fault], results: Results, before: Results | None, tests: str, only: str
) -> str:
    """The page: totals, and a row for each fault."""
    suites = {'now': results} if before is None else {'earlier suite': before, 'now': results}
    command = f'python tests/faults.py --tests {tests}'
    parts = [
        '# Faults that the tests catch',
        f'Do the tests notice a mistake? {len(faults)} mistakes were put into the package, one at a'
        ' time, and the tests of\nits room were run. A row names the first test that failed; (long)'
        ' is one of those that take minutes.\nWritten by',
        f'    {command} --only {only!r}' if only else f'    {command}',
    ]
    if any(
        verdict(found.get(f.id, {})) == 'not tried' for found in suites.values() for f in faults
    ):
        parts.append('*Not tried* means that the run was ended before its turn came.')
    for name, found in suites.items():
        head = [f'room, {name}', 'faults', 'caught', 'missed', 'unknown']
        parts.append(_table(head, totals(faults, found)))
    rows = [
        [f'`{f.file}`', f.kind, f.change, *(outcome(s.get(f.id, {})) for s in suites.values())]
        for f in faults
    ]
    head = ['file', 'kind', 'fault', *(['caught by'] if before is None else suites)]
    return '\n\n'.join([*parts, _table(head, rows)]) + '\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ([c.replace('|', r'\|') for c in row] for row in [head, ['---'] * len(head), *rows])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
