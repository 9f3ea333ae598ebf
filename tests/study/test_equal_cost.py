"""Arms made as costly as another by the one of their variants that comes nearest."""

import json
from pathlib import Path

import pytest

from condconv_det.analysis.cost import measure_config
from condconv_det.study import equal_cost
from condconv_det.study.equal_cost import fit_costs

SHAPES = Path(__file__).parents[2] / 'configs/shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
STATIC = f'dict(config={str(SHAPES)!r})'
# more classes cost more, and nothing else changes
WIDTHS = "[{'model.bbox_head.num_classes': n} for n in (5, 40, 90)]"


def arms(variants=WIDTHS, to='costly', by='multiply_adds'):
    costly = f"dict({STATIC}, cfg_options={{'model.bbox_head.num_classes': 40}})"
    wide = f'dict({STATIC}, equal_cost=dict(to={to!r}, by={by!r}, variants={variants}))'
    return f'dict(static={STATIC}, costly={costly}, wide={wide})'


@pytest.fixture
def cheap(monkeypatch):
    """A network costs what it has classes, and nothing is built."""
    monkeypatch.setattr(
        equal_cost,
        '_costs',
        lambda arms, by: {name: arm.cfg.model.bbox_head.num_classes for name, arm in arms.items()},
    )


def classes(study):
    return study.arms['wide'].cfg.model.bbox_head.num_classes


def test_the_nearest_in_multiply_adds_is_taken_and_written_down(read, tmp_path):
    study = fit_costs(read(arms=arms()), tmp_path)
    assert classes(study) == 40
    written = json.loads((tmp_path / 'equal_cost.json').read_text())['wide']
    cost = measure_config(study.arms['costly'].cfg).multiply_adds
    assert (written['to'], written['cost'], written['of_the_other']) == ('costly', cost, cost)


def test_the_nearest_in_time_is_taken(read, tmp_path, monkeypatch):
    seconds = {40: 0.01, 5: 0.005, 90: 0.0102}
    monkeypatch.setattr(
        equal_cost,
        'time_per_image',
        lambda timed: {arm.name: seconds[arm.cfg.model.bbox_head.num_classes] for arm in timed},
    )
    variants = "[{'model.bbox_head.num_classes': n} for n in (5, 90)]"
    study = read(arms=arms(variants, by='seconds_per_image'))
    assert classes(fit_costs(study, tmp_path)) == 90


def test_a_study_that_goes_on_keeps_what_was_chosen(read, tmp_path, monkeypatch, cheap):
    study = read(arms=arms())
    fit_costs(study, tmp_path)
    monkeypatch.setattr(equal_cost, '_costs', None)  # not measured again
    assert classes(fit_costs(study, tmp_path)) == 40


def test_what_is_asked_anew_is_chosen_anew(read, tmp_path, cheap):
    fit_costs(read(arms=arms()), tmp_path)
    assert classes(fit_costs(read(arms=arms(to='static')), tmp_path)) == 5


def test_a_network_that_changed_is_compared_anew(read, tmp_path, cheap):
    fit_costs(read(arms=arms()), tmp_path)
    changed = arms().replace(
        "'model.bbox_head.num_classes': 40}", "'model.bbox_head.num_classes': 90}"
    )
    assert classes(fit_costs(read(arms=changed), tmp_path)) == 90


def test_a_cost_that_no_variant_has_is_an_error(read, tmp_path, cheap):
    variants = "[{'model.bbox_head.num_classes': n} for n in (5, 6)]"
    with pytest.raises(
        ValueError,
        match=r"'wide' is to cost what 'costly' does in multiply_adds, within 3%; .* 6}, costs 0\.",
    ):
        fit_costs(read(arms=arms(variants)), tmp_path)
    assert not (tmp_path / 'equal_cost.json').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            "{'model.backbone.widen_factor': 0.25}",  # and not the neck
            "arm 'wide': equal_cost: RuntimeError: .* to have 512 channels, but got 256",
        ),
        ("{'param_scheduler.9.end': 1}", "arm 'wide': equal_cost: KeyError: .Index 9 exceeds"),
    ],
)
def test_a_variant_that_makes_no_network_is_an_error_of_its_arm(read, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        fit_costs(read(arms=arms(f'[{options}]')), tmp_path)
    assert not (tmp_path / 'equal_cost.json').exists()


def test_arms_of_any_cost_are_left_as_they_are(read, tmp_path):
    study = read()
    assert fit_costs(study, tmp_path) == study
    assert not list(tmp_path.glob('equal_cost*'))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('0.5', r'equal_cost must be a dict of .*, got 0\.5'),
        ("dict(to='static')", 'equal_cost lacks'),
        (
            "dict(to='wide', by='multiply_adds', variants=[{}])",
            r"equal_cost\.to must be an arm of a given cost, of \['static'\], got 'wide'",
        ),
        ("dict(to='static', by='flops', variants=[{}])", r"\.by must be one of .*, got 'flops'"),
        ("dict(to='static', by='multiply_adds', variants=[])", r'\.variants must be a list of cfg'),
    ],
)
def test_bad_input(read, given, message):
    with pytest.raises(ValueError, match=message):
        read(arms=f'dict(static={STATIC}, wide=dict({STATIC}, equal_cost={given}))')
