"""The page that tools/analyze_routing.py writes, in a browser."""

import shutil
from pathlib import Path

import pytest

from condconv_det.analysis.configs import read_config
from condconv_det.analysis.routing_report import analyze_routing
from condconv_det.data.shapes import make_shapes

pytestmark = pytest.mark.long
PHONE = dict(
    viewport=dict(width=390, height=844), is_mobile=True, has_touch=True, device_scale_factor=3
)


@pytest.fixture(scope='module')
def report(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('routing')
    make_shapes(folder / 'shapes', dict(test=12), size=128)
    config, checkpoint = trained['routed']
    wider_than_a_phone = shutil.copy(checkpoint, folder / f'{"epoch_" * 12}1.pth')
    options = {
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.data_root': f'{folder}/shapes/',
    }
    analyze_routing(read_config(config, options), wider_than_a_phone, folder / 'report', 'domain')
    return folder / 'report'


@pytest.fixture
def page_alone(report, tmp_path):
    """The page's address, where no other file of its folder is."""
    return Path(shutil.copy(report / 'index.html', tmp_path)).as_uri()


def test_every_figure_is_seen_in_the_page_alone(visit, report, page_alone):
    page = visit(page_alone).page
    sizes = page.locator('figure img').evaluate_all(
        'images => images.map(i => [i.naturalWidth, i.naturalHeight, i.getClientRects().length])'
    )
    assert len(sizes) == len([*report.glob('*.png')])
    assert all(min(size) > 0 for size in sizes)


def test_every_address_in_the_page_leads_to_something_within_it(visit, page_alone):
    dead = visit(page_alone).page.evaluate(
        """() => [...document.querySelectorAll('[href], [src]')]
            .map(part => part.getAttribute('href') ?? part.getAttribute('src'))
            .filter(to => to.startsWith('#') ? !document.getElementById(to.slice(1))
                                             : !to.startsWith('data:'))"""
    )
    assert dead == []


def test_the_page_asks_for_nothing_and_has_no_errors(visit, page_alone):
    visited = visit(page_alone)
    visited.page.wait_for_load_state('networkidle')
    assert {address for address in visited.asked if not address.startswith('data:')} == {page_alone}
    assert visited.errors == []


def test_on_a_phone_the_page_is_as_wide_as_the_screen(visit, page_alone):
    page = visit(page_alone, **PHONE).page
    widths = page.evaluate(
        '() => [innerWidth, document.documentElement.scrollWidth, document.body.scrollWidth]'
    )
    assert widths[0] == 390 and max(widths) <= 390
