"""Study files: what is read from them, and what is refused."""

from pathlib import Path

import pytest
from mmengine.config import Config

from condconv_det.study.plan import Study
from condconv_det.study.runs import Run, config_file, plan_runs, write_configs
from condconv_det.study.work_dirs import read_metrics, schedule_options

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPES = CONFIGS / 'shapes' / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
STATIC = f'dict(config={str(SHAPES)!r})'


@pytest.fixture(autouse=True)
def _unformatted_configs(monkeypatch):
    """mmengine's formatting takes most of the time that these tests would."""
    monkeypatch.setattr(
        'mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False
    )


@pytest.fixture
def read(tmp_path):
    """Reads a study file that says nothing unusual but what is given, as source text."""

    def read(**lines):
        usual = dict(seeds='(0, 1)', epochs='3', baseline="'static'", arms=f'dict(static={STATIC})')
        path = tmp_path / 'study.py'
        text = '\n'.join(f'{key} = {value}' for key, value in {**usual, **lines}.items() if value)
        path.write_text(text)
        return Study.fromfile(path)

    return read


def test_an_arm_is_its_config_with_its_options_hooks_and_the_studys_length(read):
    arms = f"""dict(
        static={STATIC},
        other=dict(
            config={str(SHAPES)!r},
            cfg_options={{'optim_wrapper.optimizer.lr': 0.1, 'model.backbone.widen_factor': 0.25}},
            custom_hooks=[dict(type='ZeroSumStartHook')],
        ),
    )"""
    study = read(arms=arms, epochs='36')
    static, other = study.arms['static'].cfg, study.arms['other'].cfg
    assert static.optim_wrapper.optimizer.lr == Config.fromfile(SHAPES).optim_wrapper.optimizer.lr
    assert (other.optim_wrapper.optimizer.lr, other.model.backbone.widen_factor) == (0.1, 0.25)
    assert [hook.type for hook in other.custom_hooks] == [
        *(hook.type for hook in static.custom_hooks),
        'ZeroSumStartHook',
    ]
    for cfg in (static, other):
        assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (36, 3)
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, cosine.T_max, cosine.end) == (50, 36, 36)


def test_the_studies_that_come_with_the_package_are_whole():
    for path in (CONFIGS / 'studies').glob('*.py'):
        study = Study.fromfile(path)
        assert len(study.seeds) >= 3 and len(study.arms) >= 2


@pytest.mark.parametrize(
    'lines, error, says',
    [
        (dict(seeds=None), ValueError, r"lacks \['seeds'\]"),
        (dict(seeds='(0, 0)'), ValueError, r'different integers of at least 0, got \(0, 0\)'),
        (dict(seeds='3'), ValueError, 'seeds must be different integers of at least 0, got 3'),
        (dict(seeds='()'), ValueError, r'different integers of at least 0, got \(\)'),
        (dict(seeds='(0, -1)'), ValueError, r'different integers of at least 0, got \(0, -1\)'),
        (dict(seeds='(0, 0.5)'), ValueError, r'different integers of at least 0, got \(0, 0.5\)'),
        (dict(seeds='([0], [1])'), ValueError, r'integers of at least 0, got \(\[0\], \[1\]\)'),
        (dict(seeds='(0, one)'), ValueError, "study.py: NameError: name 'one' is not defined"),
        (dict(epochs='0'), ValueError, 'epochs must be at least 1, got 0'),
        (dict(seeds='(0,'), ValueError, 'study.py is not Python: .*never closed'),
        (dict(arms='[0]'), ValueError, r'arms must be a dict of dicts, got \[0\]'),
        (dict(arms='dict(static=1)'), ValueError, "dict of dicts, got {'static': 1}"),
        (dict(baseline="'statik'"), ValueError, r"baseline 'statik' is none of \['static'\]"),
        (
            dict(arms=f"{{'static': {STATIC}, '../x': {STATIC}}}"),
            ValueError,
            r"named like a folder, got '\.\./x'",
        ),
        (
            dict(arms="dict(static=dict(config='nowhere.py'))"),
            FileNotFoundError,
            "arm 'static': its config .*nowhere.py does not exist",
        ),
        (
            dict(
                arms=f"dict(static=dict({STATIC}, cfg_options={{'param_scheduler.9.end': 1}}))",
            ),
            ValueError,
            "study.py: arm 'static': KeyError: .Index 9 exceeds the length",
        ),
        (
            dict(arms=f'dict(static=dict({STATIC}, custom_hooks=3))'),
            ValueError,
            "study.py: arm 'static': TypeError: .*int",
        ),
        (
            dict(arms=f'dict(static=dict({STATIC}, start="x"))'),
            ValueError,
            r"arm 'static' has unknown keys \['start'\]",
        ),
        (
            dict(arms=f"dict(static=dict({STATIC}, start_from='e8'))"),
            ValueError,
            "start_from must lead to an arm that starts on its own, got {'static': 'e8'}",
        ),
        (
            dict(
                arms=f"""dict(
                    static={STATIC},
                    a=dict({STATIC}, start_from='b'),
                    b=dict({STATIC}, start_from='a'),
                )"""
            ),
            ValueError,
            "start_from must lead to an arm .* got {'a': 'b', 'b': 'a'}",
        ),
        (
            dict(
                arms=f"""dict(
                    static={STATIC},
                    a=dict({STATIC}, cfg_options={{'val_evaluator.ann_file': 'mine.json'}}),
                )"""
            ),
            ValueError,
            r"arms are compared on one val set, got \[.*, 'mine.json'\]",
        ),
        (
            dict(
                arms=f"""dict(
                    static=dict({STATIC}, cfg_options=dict(test_evaluator=dict(type='VOCMetric')))
                )"""
            ),
            ValueError,
            "arm 'static': test_evaluator must be one CocoMetric, got .*VOCMetric",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(read, lines, error, says):
    with pytest.raises(error, match=says):
        read(**lines)


@pytest.mark.parametrize(
    'config, says',
    [
        ('ssd/ssd300_mobilenet-v1_8xb128-20k_coco.py', 'train_cfg has no max_epochs'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', r'param_scheduler\[1\], MultiStepLR, does not'),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', r'param_scheduler\[1\], CosineAnnealingLR, does'),
    ],
)
def test_a_schedule_that_cannot_be_resized_is_refused(config, says):
    with pytest.raises(ValueError, match=says):
        schedule_options(Config.fromfile(CONFIGS / config), 10)


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
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'last_checkpoint').write_text(f'{run.work_dir}/epoch_2.pth')
    train, *_ = run.commands()
    assert '--resume' in train and not any(word.startswith('load_from') for word in train)
    (run.work_dir / 'last_checkpoint').write_text(f'{run.work_dir}/epoch_3.pth')
    assert run.commands() == tests


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
    assert Config.fromfile(config_file(tmp_path, 'static')).train_cfg.max_epochs == 4
