"""model-index.yml and configs/*/metafile.yml, which `mim search` reads."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from condconv_det.analysis import image_size, measure_config

ROOT = Path(__file__).parents[1]
NO_NETWORKS = ('_base_', 'studies')
CONFIGS = sorted(
    path for path in ROOT.glob('configs/*/*.py') if path.parent.name not in NO_NETWORKS
)
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
ENTRIES = [
    entry for path in METAFILES for entry in yaml.safe_load((ROOT / path).read_text())['Models']
]


def relative(path):
    return str(path.relative_to(ROOT))


def test_the_index_imports_the_metafile_of_each_folder_once():
    assert METAFILES == sorted({relative(path.with_name('metafile.yml')) for path in CONFIGS})


def test_each_config_has_one_entry_in_its_folders_metafile():
    assert sorted(entry['Config'] for entry in ENTRIES) == sorted(map(relative, CONFIGS))
    for metafile in METAFILES:
        index = yaml.safe_load((ROOT / metafile).read_text())
        (collection,) = index['Collections']
        for entry in index['Models']:
            assert entry['In Collection'] == collection['Name']
            config = Path(entry['Config'])
            assert (entry['Name'], config.parent) == (config.stem, Path(metafile).parent)


def some_long(entries):
    """The first routed config of each small folder; the others take minutes together."""
    folders = {Path('configs', name) for name in ('atss', 'faster_rcnn', 'retinanet', 'rtmdet')}
    for entry in entries:
        path = Path(entry['Config'])
        short = 'condconv' in path.name and path.parent not in folders
        if short:
            folders.add(path.parent)
        yield pytest.param(entry, marks=() if short else pytest.mark.long, id=str(path))


@pytest.mark.parametrize('entry', some_long(ENTRIES))
def test_parameters_and_multiply_adds_are_measured(entry, request):
    cfg = Config.fromfile(ROOT / entry['Config'])
    if 'roi_head' not in cfg.model:  # which is counted for as many boxes as there are
        request.getfixturevalue('shapes_alone')
    height, width = image_size(cfg)
    cost = measure_config(cfg)
    assert entry['Metadata'] == {
        'Input Size': f'{height}x{width}',
        'Parameters': cost.parameters,
        'FLOPs': cost.multiply_adds,
    }


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry['Config'])
def test_an_accuracy_is_the_papers_on_its_page_or_one_of_our_results(entry):
    networks = (ROOT / 'docs' / 'networks.md').read_text()
    results = (ROOT / 'docs' / 'measured' / 'results.md').read_text()
    for result in entry.get('Results', []):
        for metric, value in result['Metrics'].items():
            if metric.startswith('paper '):
                routed = re.sub(
                    '(-condconv-e[0-9])?_8xb32', '-condconv-e[48]_8xb32', entry['Config']
                )
                assert re.search(
                    rf'^.*({re.escape(entry["Config"])}|{routed}).* {value} ', networks, re.M
                )
            else:
                row = r'^\|(?! static).*' if 'condconv' in entry['Config'] else r'^\| static.*'
                assert re.search(rf'{row}test.* {value / 100:.3f} ', results, re.M)
