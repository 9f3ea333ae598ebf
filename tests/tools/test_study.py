"""A study of two small detectors, and a third that cannot train, on a handful of shapes."""

import json
import runpy
import signal
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from condconv_det.analysis.curves import read_scalars
from condconv_det.data.shapes import make_shapes
from condconv_det.study import trainings

ROOT = Path(__file__).parents[2]
STATIC = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
ROUTED = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
CHANNELS = (64, 128, 256, 128, 64)
# A small network, and no processes for so few images.
SMALL = {
    'train_dataloader.batch_size': 4,
    'model.backbone.widen_factor': 0.25,
    'model.neck.in_channels': CHANNELS[:3],
    'model.neck.out_channels': CHANNELS,
    'model.bbox_head.in_channels': CHANNELS,
    **{
        f'{split}_dataloader.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in dict(num_workers=0, persistent_workers=False).items()
    },
}
STUDY = f"""
seeds = (0, 1)
epochs = 2
baseline = 'static'
small = {SMALL}
arms = dict(
    static=dict(config={str(STATIC)!r}, cfg_options=small),
    e8=dict(
        config={str(ROUTED)!r},
        cfg_options={{
            **small,
            'optim_wrapper.constructor': 'CondConvOptimWrapperConstructor',
            'optim_wrapper.paramwise_cfg': dict(expert_lr_mult='matched'),
            'model.backbone.cond_cfg.init': 'one-kernel',
        }},
        start_from='static',
    ),
    broken=dict(
        config={str(STATIC)!r},
        cfg_options={{**small, 'train_dataloader.dataset.data_prefix.img': 'nowhere'}},
    ),
)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(Path('data/shapes'), dict(train=8, val=6, test=6), size=128)
    Path('study.py').write_text(STUDY)
    return tmp_path


@pytest.fixture
def run_study(folder, monkeypatch, forget_runs):
    """Runs the study and its tools in this process; returns what each tool was called for."""

    def run(*args, cut_short=()):
        calls = []

        class Process:
            """A tool's process; one that is cut short ends after its first epoch or step."""

            def __init__(self, command, stdout, **_):
                config, options = Path(command[2]), ' '.join(command)
                work_dir = Path(command[command.index('--work-dir') + 1])
                training = Path(command[1]).stem == 'train'
                work_dir = work_dir if training else work_dir.parent
                name = f'{config.parent.name} {work_dir.name}'
                resumed = ' resumed' if '--resume' in options else ''
                calls.append(f'{Path(command[1]).stem} {name}{resumed}')
                self.cut_short = training and name in cut_short
                cfg = Config.fromfile(config)
                max_key = 'max_iters' if 'max_iters' in cfg.train_cfg else 'max_epochs'
                self.args = [*command[1:], *([f'train_cfg.{max_key}=1'] * self.cut_short)]
                self.output = stdout

            def wait(self):
                forget_runs()
                with monkeypatch.context() as patch, redirect_stdout(self.output):
                    patch.setattr(sys, 'argv', self.args)
                    patch.setenv('LOCAL_RANK', '0')
                    patch.setattr(signal, 'signal', lambda *_: None)  # not in a thread
                    with redirect_stderr(self.output):
                        try:
                            runpy.run_path(self.args[0], run_name='__main__')
                        except (Exception, SystemExit):
                            traceback.print_exc()
                            return 1
                return -9 if self.cut_short else 0

            def terminate(self):
                """It has ended."""

        here = SimpleNamespace(Popen=Process, STDOUT=subprocess.STDOUT)
        with monkeypatch.context() as patch:
            patch.setattr(trainings, 'subprocess', here)
            patch.setattr(sys, 'argv', ['study.py', 'study.py', '--out', 'out', *args])
            try:
                runpy.run_path(str(ROOT / 'tools' / 'study.py'), run_name='__main__')
            except SystemExit as end:
                calls.append(f'exit: {end}')
        return calls

    return run


def test_where_another_one_is_at_work_nothing_is_changed(run_study, tmp_path):
    study = f"""
seeds, epochs, baseline = (0,), 1, 'static'
static = dict(config={str(STATIC)!r})
wide = dict(to='static', by='multiply_adds', variants=[dict()])
arms = dict(static=static, wide=dict(static, equal_cost=wide))
"""
    Path('study.py').write_text(study)
    Path('out').mkdir()
    with trainings.Trainings(Path(), Path('out'), 1, 1, print):
        (end,) = run_study()
    assert end.startswith('exit: error: out: another study, or a training that a killed one left')
    assert [path.name for path in Path('out').iterdir()] == ['.lock']


@pytest.mark.long
def test_it_trains_tests_and_compares_and_goes_on_where_it_ended(run_study, capsys):
    calls = run_study('--resamples', '20', cut_short=['e8 seed1'])
    assert calls == [
        *('train static seed0', 'test static seed0', 'test static seed0', 'train broken seed0'),
        *('train static seed1', 'test static seed1', 'test static seed1', 'train broken seed1'),
        *('train e8 seed0', 'test e8 seed0', 'test e8 seed0', 'train e8 seed1'),
        'exit: error: failed: broken seed 0, broken seed 1, e8 seed 1',
    ]
    out = capsys.readouterr().out
    assert 'tools/train.py out/e8/config.py --work-dir out/e8/seed0 --cfg-options' in out
    assert 'broken/seed0/train.log:\n' in out and 'nowhere' in out
    assert 'Missing: e8, seed 1.' in out and 'Missing: broken, seed 0, 1.' in out
    assert 'static/seed0/epoch_2.pth' in Path('out/e8/seed0/train.log').read_text()

    calls = run_study('--resamples', '20')
    assert calls == [
        *('train broken seed0', 'train broken seed1'),
        *('train e8 seed1 resumed', 'test e8 seed1', 'test e8 seed1'),
        'exit: error: failed: broken seed 0, broken seed 1',
    ]
    log = Path('out/e8/seed1/train.log').read_text()
    assert log.count('Epoch(train) [1]') == log.count('Epoch(train) [2]') == 1

    table = capsys.readouterr().out
    assert table.endswith('also in out: results.md, results.json, val_mAP.png\n')
    table = table[table.index('| arm') :]
    assert table.startswith(Path('out/results.md').read_text())
    assert Path('out/val_mAP.png').read_bytes().startswith(b'\x89PNG')
    rows = {row['arm']: row for row in json.loads(Path('out/results.json').read_text())['rows']}
    assert list(rows) == ['static', 'e8']
    for arm, row in rows.items():
        assert f'| {arm} |' in table
        for split in ('val', 'test'):
            for seed in (0, 1):
                (path,) = Path('out', arm, f'seed{seed}', split).glob('*/*.json')
                measured = json.loads(path.read_text())['coco/bbox_mAP']  # in three digits
                assert abs(row['maps'][split][str(seed)] - measured) <= 0.00051
    ours, theirs = (rows[arm]['maps']['test'] for arm in ('e8', 'static'))
    expected = sum(ours[seed] - theirs[seed] for seed in ('0', '1')) / 2
    difference = rows['e8']['differences']['test']
    assert difference['mean'] == pytest.approx(expected) and difference['seeds'] == 2
    assert rows['e8']['parameters'] > rows['static']['parameters']

    changed = STUDY.replace('epochs = 2', 'epochs = 3')
    Path('study.py').write_text(changed)
    (error,) = run_study()
    assert 'static holds trainings with' in error and 'give another --out' in error


def test_of_a_study_where_all_fails_only_the_files_that_are_there_are_named(run_study, capsys):
    options = "{**small, 'train_dataloader.dataset.data_prefix.img': 'nowhere'}"
    arms = f'arms = dict(static=dict(config={str(STATIC)!r}, cfg_options={options}))'
    Path('study.py').write_text(STUDY[: STUDY.index('arms')].replace('(0, 1)', '(0,)') + arms)
    assert run_study() == ['train static seed0', 'exit: error: failed: static seed 0']
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert last == 'also in out: results.md, results.json'
    assert {path.name for path in Path('out').glob('[!.]*.*')} == {'results.md', 'results.json'}


def test_bad_arguments_are_named_before_anything_is_trained(run_study, capsys):
    assert run_study('--jobs', '0') == ['exit: 2']
    assert '--jobs must be at least 1, got 0' in capsys.readouterr().err
    Path('study.py').write_text(STUDY.replace("start_from='static'", "start_from='statik'"))
    (error,) = run_study()
    assert "start_from must lead to an arm that starts on its own, got {'e8': 'statik'}" in error
    Path('study.py').write_text(STUDY.replace('small = {', "small = {'load_from': 'no.pth', "))
    (error,) = run_study()
    assert error == "exit: error: arm 'static': checkpoint no.pth does not exist"
    Path('study.py').write_text(STUDY)
    Path('data/shapes/annotations/train.json').unlink()
    (error,) = run_study()
    assert "arm 'static': annotation file data/shapes/annotations/train.json" in error
    Path('lacking.py').write_text("custom_imports = dict(imports=['no_such_module'])")
    Path('study.py').write_text(STUDY.replace(str(STATIC), 'lacking.py'))
    (error,) = run_study()
    assert error.startswith('exit: error: Failed to import') and 'no_such_module' in error
    Path('study.py').unlink()
    (error,) = run_study()
    assert 'study.py' in error and error.startswith('exit: error:')


@pytest.mark.long
def test_schedules_by_iterations_are_resized_trained_and_drawn(run_study):
    by_iterations = {
        **SMALL,
        'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=100),
        'train_dataloader.sampler.type': 'InfiniteSampler',
        'param_scheduler': [dict(type='CosineAnnealingLR', T_max=100, by_epoch=False)],
    }
    Path('steps.py').write_text(f'_base_ = {str(STATIC)!r}\n')
    cfg = Config.fromfile('steps.py')
    cfg.merge_from_dict(by_iterations)
    cfg.dump('steps.py')
    Path('study.py').write_text(
        "seeds = (0,)\niterations = 6\nbaseline = 'static'\n"
        "arms = dict(static=dict(config='steps.py'))\n"
    )
    assert run_study('--resamples', '20', cut_short=['static seed0']) == [
        'train static seed0',
        'exit: error: failed: static seed 0',
    ]
    assert run_study('--resamples', '20') == [
        *('train static seed0 resumed', 'test static seed0', 'test static seed0')
    ]
    steps, maps = read_scalars(Path('out/static/seed0'), 'coco/bbox_mAP')
    assert steps == [1, 2, 3, 4, 5, 6] and len(maps) == 6
    assert [path.name for path in Path('out/static/seed0').glob('*.pth')] == ['iter_6.pth']
    assert '6 iterations, seeds 0.' in Path('out/results.md').read_text()
