"""What runs reach, and by how much arms differ."""

import json

import numpy as np
import pytest
from mmengine.config import Config

from condconv_det.study.differences import Found, find_differences, measure
from condconv_det.study.plan import Arm, Study
from condconv_det.study.runs import Run


def found(maps):
    """As measured, where every resample has the same mAP."""
    resampled = {
        key: {name: np.full(20, value) for name, value in of_run.items()}
        for key, of_run in maps.items()
    }
    return Found(maps, resampled)


def test_a_difference_is_the_arms_from_its_baselines_over_the_seeds_of_both():
    maps = {('e8', 0): 0.5, ('e8', 1): 0.4, ('e8', 2): 0.9, ('static', 0): 0.3, ('static', 1): 0.3}
    reached = found({key: {None: value} for key, value in maps.items()})
    of_all, *by_group = find_differences(Arm('e8', Config(), 'static'), (0, 1, 2), reached)
    assert of_all.mean == pytest.approx(0.15) and of_all.seeds == 2
    assert 0.1 - 1e-9 <= of_all.low <= of_all.mean <= of_all.high <= 0.2 + 1e-9
    assert by_group == [{}, {}]
    of_baseline = find_differences(Arm('static', Config(), 'static'), (0, 1), reached)
    assert of_baseline == (None, {}, {})


def test_differences_are_those_of_each_group_and_of_all_but_it():
    maps = {
        ('e8', 0): dict(day=0.5, night=0.6, fog=0.1),
        ('static', 0): dict(day=0.3, night=0.3, fog=0.0),
    }
    found_for = find_differences(Arm('e8', Config(), 'static'), (0,), found(maps))
    assert found_for.all.mean == pytest.approx(0.2)
    assert {name: each.mean for name, each in found_for.alone.items()} == pytest.approx(
        dict(day=0.2, night=0.3, fog=0.1)
    )
    assert {name: each.mean for name, each in found_for.without.items()} == pytest.approx(
        dict(day=0.2, night=0.15, fog=0.25)
    )
    for each in (found_for.all, *found_for.alone.values(), *found_for.without.values()):
        assert each.low == pytest.approx(each.mean) and each.high == pytest.approx(each.mean)


def test_arms_on_other_images_are_measured_on_those(tmp_path):
    """Two arms find the boxes of five images, one of them by a wrong class; a third of two.

    Another image has none.
    """
    arms, runs = {}, []
    for name, count, category in ('a', 5, 1), ('b', 5, 2), ('one-look', 2, 1):
        box = dict(category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
        annotations = [dict(box, id=i + 1, image_id=i) for i in range(count)]
        images = [dict(id=i, width=32, height=32, domain=f'look {i % 2}') for i in range(count)]
        images.append(dict(images[0], id=count, domain='without boxes'))
        categories = [dict(id=1, name='star'), dict(id=2, name='cross')]
        path = tmp_path / f'{count}.json'
        path.write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
        evaluator = dict(type='GroupedCocoMetric', ann_file=str(path), group_by='domain')
        dataset = dict(type='CocoDataset', metainfo=dict(classes=('star', 'cross')))
        cfg = Config(dict(test_evaluator=evaluator, test_dataloader=dict(dataset=dataset)))
        arms[name] = Arm(name, cfg, name)
        runs.append(Run(name, 0, 3, tmp_path))
        file = runs[-1].predictions('test')
        file.parent.mkdir(parents=True)
        file.write_text(
            json.dumps([dict(each, category_id=category, score=0.9) for each in annotations])
        )
    reached = measure(Study(arms, 'a', (0,), 3), runs, 'test', num_resamples=7)
    looks = ('look 0', 'look 1')
    for key, value in {('a', 0): 1, ('b', 0): 0, ('one-look', 0): 1}.items():
        assert reached.maps[key] == pytest.approx(dict.fromkeys(looks, value))
        assert {name: drawn.shape for name, drawn in reached.resampled[key].items()} == {
            name: (7,) for name in looks
        }
