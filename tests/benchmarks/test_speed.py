import json
import math
from types import SimpleNamespace

import pytest

from benchmarks import networks, report, speed
from benchmarks.layers import Geometry, layer_subjects, routed_geometries
from benchmarks.subject import check_same


def run(out, only, *options):
    speed.main(['--quick', '--only', only, '--out', str(out), *options])
    return json.loads((out / 'speed.json').read_text())


@pytest.mark.long
def test_a_quick_run_measures_every_level_and_writes_json_page_and_chart(tmp_path):
    rows = run(tmp_path, '(layers|experts): 1x1 1024|backbones: Mob.*train|ssd300.*infer')['rows']
    assert [(row['level'], row['mode']) for row in rows] == [
        ('layers', 'inference'),
        ('layers', 'training'),
        ('experts', 'inference'),
        ('experts', 'training'),
        ('backbones', 'training'),
        ('detectors', 'inference'),
    ]
    for row in rows:
        figures = [time for times in row['times'].values() for time in times]
        figures += row['peak_bytes'].values()
        assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert set(rows[0]['times']) == {'plain', 'ours', 'timm', 'outputs'}
    assert rows[0]['expert_bytes']['ours'] == 8 * 1024 * 1024 * 4
    # gradients and momentum of eight times the routed kernels
    added = rows[4]['peak_bytes']['ours'] - rows[4]['peak_bytes']['plain']
    assert added > 2 * 7 / 8 * rows[4]['expert_bytes']['ours']

    page = (tmp_path / 'speed.md').read_text()
    assert all(row['name'] in page for row in rows)
    chart = tmp_path / 'images' / 'speed.png'
    assert f'images/{chart.name}' in page and 0 < chart.stat().st_size < 300_000
    assert all(goal.text in page for goal in report.GOALS)


@pytest.mark.long
def test_a_run_goes_on_where_another_ended(tmp_path):
    first = run(tmp_path, 'layers: 1x1 1024.*inference')
    second = run(tmp_path, 'layers: 1x1 1024')
    assert second['rows'][0] == first['rows'][0]
    assert [row['mode'] for row in second['rows']] == ['inference', 'training']
    assert len(second['runs']) == 2


def test_images_may_be_channels_last(tmp_path):
    (row,) = run(tmp_path, 'layers: 1x1 512.*inference', '--channels-last')['rows']
    assert row['setting'] == 'float32 channels-last' and row['times'].keys() >= {'plain', 'ours'}


def test_after_its_minutes_no_row_starts_and_what_is_measured_is_there(tmp_path, monkeypatch):
    written = tmp_path / 'speed.json'
    clock = SimpleNamespace(monotonic=lambda: 61 if written.exists() else 0)
    monkeypatch.setattr(speed, 'time', clock)
    rows = run(tmp_path, 'layers: 1x1 512', '--minutes', '1')['rows']
    assert [row['mode'] for row in rows] == ['inference']
    assert rows[0]['name'] in (tmp_path / 'speed.md').read_text()


def test_figures_of_two_machines_do_not_mix(tmp_path):
    path = tmp_path / 'speed.json'
    path.write_text(json.dumps(dict(machine=dict(device='another'), runs=[], rows=[])))
    with pytest.raises(ValueError, match="speed.json must be of this machine.*'another'"):
        run(tmp_path, 'layers')


def test_routed_layers_are_found_with_the_size_of_their_input():
    network = networks.backbone(networks.MOBILENET_V1, 2)
    found = routed_geometries(network, *networks.images(300, 1))
    assert [str(geometry) for geometry in found] == [
        'depthwise 3x3 512 at 19x19',
        '1x1 512->512 at 19x19',
        'depthwise 3x3 512 stride 2 at 19x19',
        '1x1 512->1024 at 10x10',
        'depthwise 3x3 1024 at 10x10',
        '1x1 1024->1024 at 10x10',
    ]


def test_forms_that_differ_are_refused():
    (subject,) = layer_subjects([Geometry(4, 6, 1, 3, 3)])
    forms, inputs = subject.forms(), subject.inputs(2)
    check_same(subject, forms, *inputs)
    forms['timm'].form.weight.data[0, 0] += 1e-4
    with pytest.raises(ValueError, match='1x1 4->6 at 3x3: timm must equal ours'):
        check_same(subject, forms, *inputs)


def test_goals_are_judged_by_what_was_measured():
    def row(level, times, **kwargs):
        common = dict(name='x', mode='training', batch=8, setting='float32')
        common.update(
            peak_bytes=dict(plain=100, ours=400, timm=500),
            expert_bytes=dict(plain=0, ours=50),
            expert_seconds=dict(plain=0.0, ours=2.0),
        )
        return dict(common, level=level, times=times, **kwargs)

    backbone = row('backbones', dict(plain=[10.0], ours=[11.0], timm=[15.0]))
    slower = row('backbones', dict(plain=[10.0], ours=[13.0], timm=[16.0]), name='slower')
    layer = row('layers', dict(plain=[1.0], ours=[4.0], timm=[5.0], outputs=[2.0]))
    experts = row('experts', {'4 experts': [1.0], '16 experts': [4.0]})
    experts['expert_seconds'] = {'4 experts': 0.5, '16 experts': 2.0}
    assert report.floor(backbone) == 12
    lines = report.goals_table([backbone, slower, layer, experts]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split('|')[2:5]] for line in lines]
    assert cells == [
        ['0.40', '1 of 2', '0.50'],
        ['1.20', '1 of 2', '1.30'],
        ['', 'not measured', ''],
        ['0.70', '0 of 2', '0.80'],
        ['3.00', '0 of 2', '6.00'],
        ['1.10', '0 of 1', '2.00'],
        ['1.00', '0 of 1', '2.00'],
    ]
    assert 'slower' in lines[0]
