"""Each arm at the learning rate that is best for it on val."""

import json
from pathlib import Path

import pytest

from condconv_det.study.runs import best_rates, plan_runs

SHAPES = Path(__file__).parents[2] / 'configs/shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
STATIC = f'dict(config={str(SHAPES)!r})'
ARMS = f"dict(static={STATIC}, other=dict({STATIC}, cfg_options={{'randomness.seed': 3}}))"


def rate(arm):
    return arm.cfg.optim_wrapper.optimizer.lr


def test_every_arm_is_tried_at_every_rate_with_one_seed(read, tmp_path):
    study = read(arms=ARMS, learning_rates='(1e-3, 2e-3)', seeds='(4, 5)')
    grid = study.at_all_rates()
    assert {name: (rate(arm), arm.baseline) for name, arm in grid.arms.items()} == {
        'static_lr0.001': (1e-3, 'static_lr0.001'),
        'static_lr0.002': (2e-3, 'static_lr0.002'),
        'other_lr0.001': (1e-3, 'static_lr0.001'),
        'other_lr0.002': (2e-3, 'static_lr0.002'),
    }
    assert [run.seed for run in plan_runs(grid, tmp_path)] == [4] * 4


def test_an_arm_may_have_rates_of_its_own(read):
    arms = f'dict(static={STATIC}, other=dict({STATIC}, learning_rates=(5e-4, 1e-3)))'
    grid = read(arms=arms, learning_rates='(2e-3, 4e-3)').at_all_rates()
    assert {name: (rate(arm), arm.baseline) for name, arm in grid.arms.items()} == {
        'static_lr0.002': (2e-3, 'static_lr0.002'),
        'other_lr0.0005': (5e-4, 'static_lr0.002'),
        'static_lr0.004': (4e-3, 'static_lr0.004'),
        'other_lr0.001': (1e-3, 'static_lr0.004'),
    }


def test_rates_of_arms_answer_to_the_studys(read):
    arms = f'dict(static={STATIC}, other=dict({STATIC}, learning_rates=(5e-4, 1e-3)))'
    with pytest.raises(ValueError, match="'other': learning_rates must be as many as the study"):
        read(arms=arms, learning_rates='(1e-3, 2e-3, 4e-3)')
    with pytest.raises(ValueError, match='have learning_rates, so the study must have the others'):
        read(arms=arms)


def pretend(run, **maps):
    """Leaves what a trained and tested run does."""
    run.work_dir.mkdir(parents=True)
    run.checkpoint.touch()
    (run.work_dir / 'last_checkpoint').write_text(str(run.checkpoint))
    for split, value in maps.items():
        folder = run.work_dir / split / '20260101'
        folder.mkdir(parents=True)
        (folder / '20260101.json').write_text(json.dumps({run.metric: value}))


def test_each_arm_gets_its_own_best_rate_and_its_baselines(read, tmp_path):
    study = read(arms=ARMS, learning_rates='(1e-3, 2e-3)', seeds='(4, 5)')
    runs = plan_runs(study.at_all_rates(), tmp_path)
    for run, on_val in zip(runs, (0.3, 0.4, 0.2, 0.5)):
        pretend(run, val=on_val, test=1 - on_val)
    chosen = study.at_rates(best_rates(study, runs))
    assert chosen.baseline == 'static_lr0.001'
    assert {name: (rate(arm), arm.baseline) for name, arm in chosen.arms.items()} == {
        'static_lr0.001': (1e-3, 'static_lr0.001'),
        'other_lr0.002': (2e-3, 'static_lr0.001'),
    }
    left = [run.name for run in plan_runs(chosen, tmp_path) if not run.is_done]
    assert left == ['static_lr0.001 seed 5', 'other_lr0.002 seed 5']


def test_an_arm_that_failed_at_every_rate_is_named(read, tmp_path):
    study = read(arms=ARMS, learning_rates='(1e-3, 2e-3)')
    runs = plan_runs(study.at_all_rates(), tmp_path)
    for run in runs[::2]:
        pretend(run, val=0.1, test=0.1)
    with pytest.raises(ValueError, match="arm 'other' failed at every learning rate"):
        best_rates(study, runs)


@pytest.mark.parametrize('rates', ['(1e-3, 1e-3)', '(1e-3, 1.0000001e-3)', '(1e-3, 2e-3, 1e-3)'])
def test_rates_that_one_folder_would_be_named_by_are_refused(read, rates):
    with pytest.raises(ValueError, match='learning_rates must differ in six digits, .* got'):
        read(arms=ARMS, learning_rates=rates)


@pytest.mark.parametrize('rates', ['(1e-3,)', '(1e-3, 0)', '1e-3', "('fast',)"])
def test_one_rate_is_no_choice(read, rates):
    with pytest.raises(ValueError, match='learning_rates must be two or more above 0 to choose'):
        read(arms=ARMS, learning_rates=rates)


def test_one_rate_of_an_arms_own_is_no_choice(read):
    arms = f'dict(static={STATIC}, own=dict({STATIC}, learning_rates=(1e-3,)))'
    with pytest.raises(ValueError, match="arm 'own': learning_rates must be two or more above 0"):
        read(arms=arms, learning_rates='(1e-3, 2e-3)')


def test_an_arm_that_starts_from_another_keeps_its_own_rate(read):
    arms = f"dict(static={STATIC}, later=dict({STATIC}, start_from='static'))"
    with pytest.raises(ValueError, match=r"\['later'\] start from others: set optimizer.lr in"):
        read(arms=arms, learning_rates='(1e-3, 2e-3)')


def test_groups_of_images_count_in_the_place_of_all(read):
    evaluator = "dict(type='GroupedCocoMetric', ann_file='x.json', group_by='site')"
    (arm,) = read(
        arms=f"""dict(static=dict({STATIC}, cfg_options={{
            'val_evaluator': {evaluator}, 'test_evaluator': {evaluator}}}))"""
    ).arms.values()
    assert arm.metric == 'coco/site_mAP'
