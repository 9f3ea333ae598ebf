import json
import re
import string

import cv2
import numpy as np
import pytest

from condconv_det.analysis.routing import Grouping
from condconv_det.analysis.routing_records import RoutingRecords
from condconv_det.analysis.routing_report import describe_separation, pick_depths, write_report


@pytest.fixture
def images(tmp_path):
    """Files of twelve images of different shapes, each of one grey, 20 times its number."""
    files = [tmp_path / f'{index}.png' for index in range(12)]
    for index, file in enumerate(files):
        cv2.imwrite(str(file), np.full((20 + index, 30, 3), 20 * index, np.uint8))
    return files


def records_of(images, num_layers=3, num_groups=2):
    """Each layer tells the groups further apart than the one before it; the first not at all."""
    rng = np.random.default_rng(0)
    labels = np.arange(len(images)) % num_groups
    weights = {}
    for layer in range(num_layers):
        values = rng.uniform(0.4, 0.5, (len(images), 1, 4))
        values[:, 0, 0] += 0.25 * layer * (labels == 1)
        weights[f'layer{layer}'] = values
    names = [f'group <{index}>' for index in range(num_groups)]
    grouping = Grouping.from_labels('class', names, labels[:, None].tolist())
    return RoutingRecords(weights, images, [grouping], ['roi_head.fc'])


def test_the_page_says_what_was_planted_and_needs_no_other_file(images, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    records = records_of(images * 2)  # of twelve, chance may deal out the very groups
    summary = write_report(records, 'a <network>', out)
    page = (out / 'index.html').read_text()

    (finding,) = summary['findings']
    assert finding.startswith('Late layers tell images apart by class, early ones do not: 2 of 3')
    assert finding in page
    assert 'a &lt;network&gt;' in page and 'group &lt;1&gt;' in page
    assert 'roi_head.fc' in page
    pictures = re.findall(r'src="([^"]{22})', page)
    assert pictures == ['data:image/png;base64,'] * len(list(out.glob('*.png')))
    assert 'http' not in page and 'href' not in page

    assert summary == json.loads((out / 'summary.json').read_text())
    assert summary['groups'] == {'class': {'group <0>': 12, 'group <1>': 12}}
    weights = records.weights['layer2'][1::2, 0]
    means = summary['layers']['layer2']['mean_weights']['class']['group <1>']
    np.testing.assert_allclose(means, weights.mean(0))


def test_contact_sheets_show_the_images_that_excite_an_expert_most(images, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    records = records_of(images)
    records.weights['layer0'][:, 0, 2] = np.linspace(0, 1, 12)
    summary = write_report(records, '', out)
    best = summary['most_exciting']['layer0'][2]
    assert [entry['image'] for entry in best] == [str(file) for file in images[:3:-1]]
    assert best[0]['weight'] == 1

    sheet = cv2.imread(str(out / 'experts_early.png'))
    row = sheet[2 * 112 + 48, 60:]  # through the middle of the third row's images
    assert row[48::96, 0].tolist() == [20 * index for index in range(11, 3, -1)]


@pytest.mark.parametrize('shape', [(1, 2000, 3), (2000, 1, 3)])
def test_an_image_of_extreme_shape_is_drawn(images, tmp_path, shape):
    out = tmp_path / 'out'
    out.mkdir()
    cv2.imwrite(str(images[0]), np.zeros(shape, np.uint8))
    records = records_of(images)
    records.weights['layer0'][0] = 1  # it excites every expert
    write_report(records, '', out)
    sheet = cv2.imread(str(out / 'experts_early.png'))
    assert (sheet[:96, 62:154] == 0).all(-1).sum() == 92  # a line of one pixel


def test_of_one_group_the_page_says_so_and_compares_nothing(images, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    summary = write_report(records_of(images, num_layers=2, num_groups=1), '', out)
    said = 'Not compared by class: all 12 images with a class have the same one, group'
    assert [finding.startswith(said) for finding in summary['findings']] == [True]
    assert all(layer['variance_ratio'] == {} for layer in summary['layers'].values())
    page = (out / 'index.html').read_text()
    assert said in page and 'between' not in page.lower() and 'Rows alike' not in page
    drawn = {file.name for file in out.glob('*.png')}
    assert {'mean_weights_class.png', 'histograms.png', 'spread_class.png'} < drawn
    assert 'separation.png' not in drawn


def test_a_grouping_of_one_group_leaves_the_others_compared(images, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    records = records_of(images, num_layers=1)
    records.groupings.append(Grouping.from_labels('camera', ['left'], [[0]] * len(images)))
    summary = write_report(records, '', out)
    assert [finding.startswith('Not compared by camera: ') for finding in summary['findings']] == [
        False,
        True,
    ]
    assert list(summary['layers']['layer0']['variance_ratio']) == ['class']
    page = (out / 'index.html').read_text()
    assert 'by class (chance)' in page and 'by camera (chance)' not in page


@pytest.mark.parametrize('num_layers, num_groups', [(1, 1), (2, 60)])
def test_few_layers_and_few_or_many_groups_are_drawn(images, tmp_path, num_layers, num_groups):
    out = tmp_path / 'out'
    out.mkdir()
    write_report(records_of(images * 10, num_layers, num_groups), '', out)
    assert (out / 'index.html').exists()


@pytest.mark.parametrize(
    'num_layers, depths',
    [
        (1, dict(early='a')),
        (2, dict(early='a', late='b')),
        (3, dict(early='a', middle='b', late='c')),
        (6, dict(early='a', middle='c', late='f')),
    ],
)
def test_depths_are_first_middle_and_last(num_layers, depths):
    assert pick_depths(list(string.ascii_lowercase[:num_layers])) == depths


@pytest.mark.parametrize(
    'ratios, says',
    [
        ([0.1, 0.1, 0.1], 'No layer tells images apart by domain: 0 of 3'),
        ([2.0, 0.1, 0.1], 'Early layers tell images apart by domain, late ones do not: 1 of 3'),
        ([0.1, 1.0, 2.0], 'Late layers tell images apart by domain, early ones do not: 2 of 3'),
        ([2.0, 0.1, 1.0], 'Early and late layers .* early ones better: 2 of 3'),
        ([1.0, 0.1, 2.0], 'Early and late layers .* late ones better: 2 of 3'),
        ([0.1, 2.0, 0.1], 'Layers between .* the highest is in b'),
        ([2.0], 'Early and late layers'),
    ],
)
def test_findings_compare_with_chance(ratios, says):
    layers = {
        name: dict(variance_ratio=dict(domain=ratio), chance_ratio=dict(domain=0.2))
        for name, ratio in zip('abc', ratios)
    }
    assert re.match(says, describe_separation('domain', layers))
