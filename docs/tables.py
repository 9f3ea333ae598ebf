"""Writes the tables of studies into the pages that quote them.

A page says `<!-- study NAME -->`, or `<!-- groups NAME -->` for the mAP of each group of test
images, and `<!-- end -->`; what stands between is replaced by what `docs/studies/NAME.json` holds,
a study's `results.json`. With --check nothing is written, and a page that is not up to date is an
error.
"""

import argparse
import re
import sys
from pathlib import Path

from condconv_det.study.report import Results, groups_to_markdown, to_markdown

DOCS = Path(__file__).parent
MARKED = re.compile(r'(<!-- (study|groups) ([\w.-]+) -->\n).*?(<!-- end -->)', re.DOTALL)


def filled(page: str, studies: Path) -> str:
    """A page's text with its tables as the studies' results say.

    Raises:
        FileNotFoundError: there are no results of a study that it names.
    """

    def table(match: re.Match) -> str:
        begin, kind, name, end = match.groups()
        results = Results.fromfile(studies / f'{name}.json')
        text = to_markdown(results) if kind == 'study' else groups_to_markdown(results, 'test')
        return f'{begin}{text}{end}'

    return MARKED.sub(table, page)


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
    print(f'{len(outdated)} pages {"would change" if args.check else "written"}')


if __name__ == '__main__':
    main()
