"""The table of a study, from rows made by hand."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from condconv_det.study.plan import Arm, Study
from condconv_det.study.report import (
    Difference,
    Found,
    Results,
    Row,
    _difference,
    groups_to_markdown,
    measure,
    time_per_image,
    to_markdown,
)
from condconv_det.study.runs import Run

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


def test_results_are_read_as_they_were_written(tmp_path):
    difference = Difference(0.03, -0.0114, 0.05, 2)
    results = results_of(row('e8', 'static', {0: 0.45, 1: 0.43}, difference), arms=['e16'])
    results.write(tmp_path / 'results.json')
    assert Results.fromfile(tmp_path / 'results.json') == results


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


def test_a_difference_is_the_arms_from_its_baselines_over_the_seeds_of_both():
    maps = {('e8', 0): 0.5, ('e8', 1): 0.4, ('e8', 2): 0.9, ('static', 0): 0.3, ('static', 1): 0.3}
    reached = Found(maps, {}, {key: np.full(20, value) for key, value in maps.items()})
    found = _difference(Arm('e8', Config(), 'static'), (0, 1, 2), reached)
    assert found.mean == pytest.approx(0.15) and found.seeds == 2
    assert 0.1 - 1e-9 <= found.low <= found.mean <= found.high <= 0.2 + 1e-9
    assert _difference(Arm('static', Config(), 'static'), (0, 1), reached) is None


def test_arms_on_other_images_are_measured_on_those(tmp_path):
    """Two arms find the boxes of five images, one of them by a wrong class; a third of two."""
    arms, runs = {}, []
    for name, count, category in ('a', 5, 1), ('b', 5, 2), ('one-look', 2, 1):
        box = dict(category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
        annotations = [dict(box, id=i + 1, image_id=i) for i in range(count)]
        images = [dict(id=i, width=32, height=32, domain=f'look {i % 2}') for i in range(count)]
        categories = [dict(id=1, name='star'), dict(id=2, name='cross')]
        path = tmp_path / f'{count}.json'
        path.write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
        evaluator = dict(type='GroupedCocoMetric', ann_file=str(path), group_by='domain')
        dataset = dict(metainfo=dict(classes=('star', 'cross')))
        cfg = Config(dict(test_evaluator=evaluator, test_dataloader=dict(dataset=dataset)))
        arms[name] = Arm(name, cfg, name)
        runs.append(Run(name, 0, 3, tmp_path))
        file = runs[-1].predictions('test')
        file.parent.mkdir(parents=True)
        file.write_text(
            json.dumps([dict(each, category_id=category, score=0.9) for each in annotations])
        )
    found = measure(Study(arms, 'a', (0,), 3), runs, 'test', num_resamples=7)
    assert found.maps == pytest.approx({('a', 0): 1, ('b', 0): 0, ('one-look', 0): 1})
    assert found.groups['one-look', 0] == pytest.approx({'look 0': 1, 'look 1': 1})
    assert {key: drawn.shape for key, drawn in found.resampled.items()} == {
        key: (7,) for key in found.maps
    }
