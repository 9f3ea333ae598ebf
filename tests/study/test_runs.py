"""The trainings that a study plans, the configs it writes for them, what it reads of them."""

from pathlib import Path

import pytest
from mmengine.config import Config

from condconv_det.study.runs import Run, config_file, plan_runs, write_configs
from condconv_det.study.work_dirs import read_metrics, schedule_options

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPES = CONFIGS / 'shapes' / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
STATIC = f'dict(config={str(SHAPES)!r})'


PAPERS = 'ssd/ssd300_mobilenet-v1_8xb128-20k_coco.py'


@pytest.mark.parametrize(
    'config, unit, length, says',
    [
        (PAPERS, 'epochs', 10, 'no max_epochs, .* to 10 epochs; it counts iterations'),
        (str(SHAPES), 'iterations', 10, 'no max_iters, .* to 10 iterations; it counts epochs'),
        # its warm-up
        (PAPERS, 'iterations', 1000, r'param_scheduler\.0, LinearLR, does .* to 1000'),
        (
            'retinanet/retinanet_r50_fpn_1x_coco.py',
            *('epochs', 10, r'param_scheduler\.1, MultiStepLR, does not'),
        ),
        (
            'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
            *('epochs', 10, r'param_scheduler\.1, CosineAnnealingLR, does'),
        ),
    ],
)
def test_a_schedule_that_cannot_be_resized_is_refused(config, unit, length, says):
    with pytest.raises(ValueError, match=says):
        schedule_options(Config.fromfile(CONFIGS / config), length, unit)


@pytest.mark.parametrize(
    'scheduler',
    [
        dict(type='CosineAnnealingLR', T_max=500, end=500, by_epoch=False),
        dict(type='MultiStepLR', milestones=[300, 400], end=500, by_epoch=False),
        dict(type='LinearLR', begin=100, end=200, by_epoch=False),
        dict(type='ExponentialLR', gamma=0.9, by_epoch=False),
        dict(type='ExponentialLR', gamma=0.9, end=5),
        dict(type='StepLR', step_size=2, end=5),
    ],
)
def test_in_a_training_of_epochs_only_a_warm_up_counts_steps(scheduler):
    cfg = Config.fromfile(SHAPES)
    cfg.param_scheduler = [scheduler]
    with pytest.raises(ValueError, match=r'param_scheduler\.0, .*, does not go evenly to the'):
        schedule_options(cfg, 3)


@pytest.mark.parametrize(
    'scheduler',
    [
        dict(type='CosineAnnealingLR', T_max=20000, by_epoch=True),
        dict(type='CosineAnnealingLR', T_max=20000, begin=1000, by_epoch=False),
        dict(type='CosineAnnealingLR', T_max=9000, end=20000, by_epoch=False),
        dict(type='CosineAnnealingLR', T_max=9000, end=9000, by_epoch=False),
        dict(type='MultiStepLR', milestones=[9000], end=20000, by_epoch=False),
        dict(type='LinearLR', begin=1000, end=2000, by_epoch=False),
        dict(type='ExponentialLR', gamma=0.9, by_epoch=False),
    ],
)
def test_of_iterations_only_what_runs_evenly_to_the_last_is_resized(scheduler):
    cfg = Config.fromfile(CONFIGS / PAPERS)
    cfg.param_scheduler = [scheduler]
    with pytest.raises(ValueError, match=r'param_scheduler\.0, .*, does not go evenly to the'):
        schedule_options(cfg, 5000, 'iterations')


def test_at_the_configs_own_length_all_schedules_stay():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_r50_fpn_1x_coco.py')
    assert not [key for key in schedule_options(cfg, 12) if key.startswith('param_scheduler')]


def test_a_scheduler_may_stand_alone():
    cfg = Config.fromfile(SHAPES)
    cfg.param_scheduler = dict(type='CosineAnnealingLR', T_max=5)
    cfg.merge_from_dict(schedule_options(cfg, 3))
    assert cfg.param_scheduler.T_max == 3


@pytest.mark.parametrize('begin, resized', [(2, 2), (4, 1)])
def test_a_validation_comes_before_the_end(begin, resized):
    cfg = Config.fromfile(SHAPES)
    cfg.train_cfg.val_begin = begin
    cfg.merge_from_dict(schedule_options(cfg, 3))
    assert cfg.train_cfg.val_begin == resized


def test_a_schedule_by_iterations_ends_with_the_training_after_its_warm_up():
    cfg = Config.fromfile(CONFIGS / PAPERS)
    cfg.merge_from_dict(schedule_options(cfg, 2400, 'iterations'))
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (2400, 200)
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == 1000
    assert (cosine.T_max, cosine.end) == (1400, 2400)
    assert cfg.default_hooks.checkpoint.interval == 200


def test_a_run_by_iterations_ends_with_their_checkpoint(read, tmp_path):
    config = str(CONFIGS / PAPERS)
    arms = f'dict(static=dict(config={config!r}))'
    study = read(epochs=None, iterations='2400', arms=arms)
    assert [run.checkpoint for run in plan_runs(study, tmp_path)] == [
        tmp_path / 'static' / f'seed{seed}' / 'iter_2400.pth' for seed in (0, 1)
    ]


def test_runs_come_after_those_they_start_from_and_one_seed_of_all_first(read, tmp_path):
    arms = f"""dict(
        later=dict({STATIC}, start_from='warm'),
        warm=dict({STATIC}, start_from='static'),
        static={STATIC},
        other={STATIC},
    )"""
    runs = plan_runs(read(arms=arms), tmp_path)
    assert [run.name for run in runs] == [
        *(f'{arm} seed {seed}' for seed in (0, 1) for arm in ('static', 'other')),
        *(f'{arm} seed {seed}' for seed in (0, 1) for arm in ('warm', 'later')),
    ]
    later = runs[-1]
    assert (later.start.name, later.start.start.name) == ('warm seed 1', 'static seed 1')


def test_a_first_training_starts_from_the_other_arm_and_one_goes_on_from_its_own(tmp_path):
    run = Run('warm', 4, 3, tmp_path, start=Run('static', 4, 3, tmp_path))
    train, *tests = run.commands()
    assert train == (
        *('train.py', f'{tmp_path}/warm/config.py', '--work-dir', f'{tmp_path}/warm/seed4'),
        *('--cfg-options', 'randomness.seed=4', f'load_from={tmp_path}/static/seed4/epoch_3.pth'),
    )
    assert [command[1] for command in tests] == [
        f'{tmp_path}/warm/config_val.py',
        f'{tmp_path}/warm/config.py',
    ]
    assert run.trained_part == 0
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'last_checkpoint').write_text(f'{run.work_dir}/epoch_2.pth')
    assert run.trained_part == 2 / 3
    train, *_ = run.commands()
    assert '--resume' in train and not any(word.startswith('load_from') for word in train)
    (run.work_dir / 'last_checkpoint').write_text(f'{run.work_dir}/epoch_3.pth')
    assert run.commands() == tests and run.trained_part == 1


def test_a_measurement_that_a_kill_cut_short_is_made_again(tmp_path):
    run = Run('static', 0, 3, tmp_path)
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'last_checkpoint').write_text(f'{run.work_dir}/epoch_3.pth')
    for split, text in dict(val='{"coco/bbox_mAP": 0.5}', test='{"coco/bbox_mAP": 0.').items():
        (run.work_dir / split / '20240101_000000').mkdir(parents=True)
        (run.work_dir / split / '20240101_000000' / 'metrics.json').write_text(text)
    assert read_metrics(run.work_dir / 'val') == {'coco/bbox_mAP': 0.5}
    assert read_metrics(run.work_dir / 'test') is None
    (test,) = run.commands()
    assert test[1] == f'{tmp_path}/static/config.py' and not run.is_done


def test_val_is_tested_with_the_configs_val_set(read, tmp_path):
    study = read()
    write_configs(study, tmp_path)
    given = Config.fromfile(SHAPES)
    on_test = Config.fromfile(config_file(tmp_path, 'static'))
    on_val = Config.fromfile(config_file(tmp_path, 'static', 'val'))
    assert on_test.test_dataloader == given.test_dataloader
    assert on_val.test_dataloader == given.val_dataloader
    assert on_val.test_evaluator == given.val_evaluator
    assert on_val.model == on_test.model == given.model


def test_a_study_that_changed_is_refused_once_it_has_trained(read, tmp_path):
    write_configs(read(), tmp_path)
    write_configs(read(epochs='4'), tmp_path)  # nothing was trained
    (tmp_path / 'static' / 'seed0').mkdir()
    write_configs(read(epochs='4', seeds='(0, 1, 2)'), tmp_path)  # more of the same
    with pytest.raises(ValueError, match='static holds trainings with .*4.*the study now says .*5'):
        write_configs(read(epochs='5'), tmp_path)
    arms = f"dict(static=dict({STATIC}, start_from='other'), other={STATIC})"
    with pytest.raises(ValueError, match="now says '# starts from other'"):
        write_configs(read(epochs='4', arms=arms), tmp_path)
    config = config_file(tmp_path, 'static')
    assert Config.fromfile(config).train_cfg.max_epochs == 4
    config.write_text(config.read_text() + '\nwork_dir = 1\n')
    with pytest.raises(ValueError, match="with 'work_dir = 1', where the study now says ''"):
        write_configs(read(epochs='4'), tmp_path)


def test_figures_of_an_earlier_training_are_measured_again(tmp_path):
    run = Run('static', 0, 3, tmp_path)
    for split in ('val', 'test'):
        (run.work_dir / split / '20240101_000000').mkdir(parents=True)
        metrics = run.work_dir / split / '20240101_000000' / 'metrics.json'
        metrics.write_text('{"coco/bbox_mAP": 0.5}')
    assert [command[0] for command in run.commands()] == ['train.py', 'test.py', 'test.py']
