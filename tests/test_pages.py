"""Pages: links lead somewhere, tables are those of the studies' results."""

import re
import runpy
from pathlib import Path

import cv2
import pytest

from condconv_det.study.differences import Difference
from condconv_det.study.report import Results, Row

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'benchmarks').rglob('*.md')]
)
TABLES = runpy.run_path(str(ROOT / 'docs' / 'tables.py'))


def without_code(text):
    return re.sub(r'```.+?```', '', text, flags=re.DOTALL)


def anchors(page):
    """Those of a page's titles, as GitHub makes them."""
    titles = re.findall(r'^#+ (.+)$', without_code(page.read_text()), flags=re.MULTILINE)
    plain = (re.sub(r'[^\w\- ]', '', re.sub(r'\[(.+?)\]\(.+?\)', r'\1', title)) for title in titles)
    return {title.lower().replace(' ', '-') for title in plain}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', without_code(page.read_text())):
        if '://' in link:
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_tables_are_those_of_the_results():
    for page in PAGES:
        text = page.read_text()
        assert TABLES['filled'](text, ROOT / 'docs' / 'studies') == text, (
            f'run docs/tables.py: {page}'
        )


def row(arm, difference=None, baseline='static'):
    return Row(
        arm=arm,
        baseline=baseline,
        maps=dict(val={0: 0.5}, test={0: 0.25}),
        groups=dict(val={}, test=dict(fog=0.75)),
        differences=dict(val=None, test=difference),
        parameters=1_000_000,
        multiply_adds=2_000_000,
        image_seconds=0.003,
        training_seconds=60.0,
    )


def test_tables_are_filled_in_where_a_page_names_a_study(tmp_path):
    Results('static', [0], 5, 'epochs', ['static'], [row('static')]).write(tmp_path / 'looks.json')
    page = """before
<!-- study looks -->
an old table
<!-- end -->
between
<!-- groups looks -->
<!-- end -->
after"""
    filled = TABLES['filled'](page, tmp_path)
    assert '| static | 0.500 | 0.250 |' in filled and '| fog | 0.750 |' in filled
    assert 'an old table' not in filled
    assert filled.startswith('before\n<!-- study looks -->\n| arm |') and filled.endswith('after')
    assert TABLES['filled'](filled, tmp_path) == filled


def test_a_study_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='looks.json'):
        TABLES['filled']('<!-- study looks -->\n<!-- end -->', tmp_path)


def test_the_figure_has_each_condconv_training_once_by_placement(tmp_path):
    found = {
        arm: Difference(mean, mean - 0.01, mean + 0.01, 1)
        for arm, mean in dict(head=0.02, head_slow=0.03, everywhere=0.04, static_wide=0.05).items()
    }
    rows = [row('static'), *(row(arm, difference) for arm, difference in found.items())]
    rows.append(row('head_one-expert', Difference(-0.01, -0.02, 0.0, 1), baseline='head'))
    one, other = (
        Results('static', [0], 5, 'epochs', [found.arm for found in chosen], chosen)
        for chosen in (rows, [row('static'), row('head', found['head'])])
    )
    studies = dict(one=one, other=other)
    assert TABLES['found_differences'](studies) == [
        ("in the head's predictors alone", 'one: head_slow (1)', found['head_slow']),
        ("in the head's predictors alone", 'one: head (1)', found['head']),
        ('in every layer', 'one: everywhere (1)', found['everywhere']),
    ]
    TABLES['draw_differences'](studies, tmp_path / 'differences.png')
    height, width = cv2.imread(str(tmp_path / 'differences.png')).shape[:2]
    assert width > height > 100
