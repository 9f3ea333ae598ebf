"""The table of a study, from rows made by hand."""

import json

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from condconv_det.study.differences import Difference
from condconv_det.study.plan import Arm
from condconv_det.study.report import (
    Results,
    Row,
    group_differences_to_markdown,
    groups_to_markdown,
    time_per_image,
    to_markdown,
)

NETWORK = dict(parameters=1_340_000, multiply_adds=302_400_000)


def row(arm, baseline, maps, difference=None, **kwargs):
    both = dict(val=maps, test={seed: value / 2 for seed, value in maps.items()})
    differences = dict(val=difference, test=None)
    times = dict(image_seconds=0.0123, training_seconds=90.0)
    groups = dict(val={}, test=dict(day=0.5, night=0.25))
    return Row(arm, baseline, both, groups, differences, **{**NETWORK, **times, **kwargs})


def results_of(*rows, arms=()):
    return Results('static', [0, 1], 15, 'epochs', [*(row.arm for row in rows), *arms], list(rows))


def test_a_row_has_mean_deviation_difference_and_cost():
    rows = [
        row('static', 'static', {0: 0.4, 1: 0.42}),
        row('e8', 'static', {0: 0.45, 1: 0.43}, Difference(0.03, -0.0114, 0.05, 2)),
        row('warm', 'e8', {0: 0.45, 1: 0.43}, Difference(-0.002, -0.01, 0.02, 2)),
    ]
    header, _, *lines = to_markdown(results_of(*rows)).splitlines()
    assert '| val, difference to static | test, difference to static |' in header
    cost = '1.3 M | 302 M | 12.3 ms | 1.5 min |'
    assert lines[:3] == [
        f'| static | 0.410 ± 0.014 | 0.205 ± 0.007 |  |  | {cost}',
        f'| e8 | 0.440 ± 0.014 | 0.220 ± 0.007 | +0.030 [-0.011, +0.050] |  | {cost}',
        f'| warm | 0.440 ± 0.014 | 0.220 ± 0.007 | -0.002 [-0.010, +0.020] to e8 |  | {cost}',
    ]
    assert lines[4].startswith('15 epochs, seeds 0, 1.') and lines[4].endswith('images and seeds.')
    assert 'Missing' not in '\n'.join(lines)


def test_what_is_missing_is_named():
    e8 = row('e8', 'static', {1: 0.45}, Difference(0.03, -0.01, 0.05, 1))
    rows = [row('static', 'static', {0: 0.4, 1: 0.42}), e8]
    table = to_markdown(results_of(*rows, arms=['e16']))
    # one seed has no deviation
    assert '| e8 | 0.450 | 0.225 | +0.030 [-0.010, +0.050] (1 seed) |' in table
    assert 'images and seeds; of one seed, over images alone.' in table
    assert 'Missing: e8, seed 0.' in table and 'Missing: e16, seed 0, 1.' in table
    assert 'Missing: static' not in table


def test_of_one_training_each_the_table_says_that_the_interval_is_over_images():
    rows = [row('static', 'static', {3: 0.4})]
    results = Results('static', [3], 1, 'epochs', ['static'], rows)
    assert to_markdown(results).splitlines()[-1] == (
        '1 epoch, seed 3. In brackets: 95 percent interval of the difference, by a bootstrap over '
        'images; of other seeds it says nothing.'
    )


def test_groups_of_images_have_a_table_of_their_own():
    results = results_of(row('static', 'static', {0: 0.4}), row('e8', 'static', {0: 0.5}))
    header, _, *lines = groups_to_markdown(results, 'test').splitlines()
    assert header == '| test mAP | static | e8 |'
    assert lines == ['| day | 0.500 | 0.500 |', '| night | 0.250 | 0.250 |']
    assert groups_to_markdown(results, 'val') == ''


def test_groups_that_an_arm_has_not_are_left_open():
    of_one = row('one-look', 'static', {0: 0.5})
    del of_one.groups['test']['night']
    *_, night = groups_to_markdown(
        results_of(row('static', 'static', {0: 0.4}), of_one), 'test'
    ).splitlines()
    assert night == '| night | 0.250 |  |'


def test_differences_have_tables_by_group():
    by_group = dict(day=Difference(0.04, -0.01, 0.05, 2), night=Difference(0.02, 0.01, 0.03, 2))
    both = dict(
        group_differences=dict(val={}, test=by_group),
        differences_without=dict(val={}, test=dict(day=by_group['night'], night=by_group['day'])),
    )
    results = results_of(
        row('static', 'static', {0: 0.4}),
        row('e8', 'static', {0: 0.5}, **both),
        row('wide', 'e8', {0: 0.5}, **both),
    )
    header, _, *lines = group_differences_to_markdown(results, 'test').splitlines()
    assert header == '| test, difference to static in | e8 | wide to e8 |'
    day, night = '+0.040 [-0.010, +0.050]', '+0.020 [+0.010, +0.030]'
    assert lines == [f'| day | {day} | {day} |', f'| night | {night} | {night} |']
    header, _, *lines = group_differences_to_markdown(results, 'test', without=True).splitlines()
    assert header == '| test, difference to static without | e8 | wide to e8 |'
    assert lines == [f'| day | {night} | {night} |', f'| night | {day} | {day} |']
    assert group_differences_to_markdown(results, 'val') == ''


def test_results_are_read_as_they_were_written(tmp_path):
    difference = Difference(0.03, -0.0114, 0.05, 2)
    by_group = dict(val={}, test=dict(day=difference))
    rows = [
        row('e8', 'static', {0: 0.45, 1: 0.43}, difference, group_differences=by_group),
        row('warm', 'e8', {0: 0.45, 1: 0.43}, difference, differences_without=by_group),
    ]
    results = results_of(*rows, arms=['e16'])
    results.write(tmp_path / 'results.json')
    assert Results.fromfile(tmp_path / 'results.json') == results


def test_results_of_older_versions_have_no_differences_by_group(tmp_path):
    file = tmp_path / 'results.json'
    results = results_of(row('e8', 'static', {0: 0.45}))
    results.write(file)
    older = json.loads(file.read_text())
    for each in older['rows']:
        del each['group_differences'], each['differences_without']
    file.write_text(json.dumps(older))
    assert Results.fromfile(file) == results


def test_time_per_image_is_the_networks_on_one_thread(monkeypatch):
    threads, shapes = [], []

    class Spy(nn.Module):
        def forward(self, x, **inputs):
            assert inputs['mode'] == 'tensor' and not self.training
            threads.append(torch.get_num_threads())
            shapes.append(tuple(x.shape))

    monkeypatch.setattr(MODELS, 'build', lambda cfg: Spy())
    resize = dict(type='Resize', scale=(96, 64))
    cfg = Config(dict(model=dict(), test_dataloader=dict(dataset=dict(pipeline=[resize]))))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    times = time_per_image([Arm('a', cfg, 'a'), Arm('b', cfg, 'a')], rounds=3)
    assert set(times) == {'a', 'b'} and all(value > 0 for value in times.values())
    assert set(threads) == {1} and set(shapes) == {(1, 3, 64, 96)}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
