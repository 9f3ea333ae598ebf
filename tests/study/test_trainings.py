"""Runs carried out, with scripts in the place of train.py and test.py that only leave traces."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from condconv_det.study.runs import Run
from condconv_det.study.trainings import Trainings, _times

EPOCHS = 2
TRAIN = """
import os, sys, time
from pathlib import Path

config, work_dir = Path(sys.argv[1]), Path(sys.argv[3])
out, name = config.parents[1], f'{config.parent.name}-{work_dir.name}'
start = [word.removeprefix('load_from=') for word in sys.argv if word.startswith('load_from=')]
assert all(Path(path).exists() for path in start), start
last = work_dir / 'last_checkpoint'
begun = int(last.read_text()[-5]) if '--resume' in sys.argv else 0
(out / f'{name}.pid').write_text(str(os.getpid()))
print('threads', os.environ['OMP_NUM_THREADS'], flush=True)
if name.startswith('broken'):
    sys.exit('no such layer')
if name.startswith('meets'):  # ends when another training runs beside it
    deadline = time.monotonic() + 20
    while len(list(out.glob('meets*.pid'))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
for epoch in range(begun + 1, 3):
    with (out / 'trained').open('a') as trained:
        trained.write(f'{name} {epoch}\\n')
    (work_dir / f'epoch_{epoch}.pth').touch()
    last.write_text(str(work_dir / f'epoch_{epoch}.pth'))
    if name.startswith('hangs') and not begun:
        time.sleep(60)
"""
TEST = """
import sys
from pathlib import Path

config, checkpoint, work_dir = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[4])
assert checkpoint.name == 'epoch_2.pth' and checkpoint.exists()
(work_dir / 'now').mkdir(parents=True)
value = 0.25 if config.stem == 'config_val' else 0.5
(work_dir / 'now' / 'now.json').write_text(f'{{"coco/bbox_mAP": {value}}}')
"""


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / 'tools'
    folder.mkdir()
    (folder / 'train.py').write_text(TRAIN)
    (folder / 'test.py').write_text(TEST)
    return folder


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / 'out'
    folder.mkdir()
    return folder


@pytest.fixture
def begin(tools, out):
    """Trainings, and the list of lines that they say."""

    def begin(jobs=1, threads=1):
        said = []
        return Trainings(tools, out, jobs, threads, said.append), said

    return begin


def trained(out):
    return (out / 'trained').read_text().splitlines()


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_run_is_trained_and_tested_once(begin, out):
    first = Run('plain', 0, EPOCHS, out)
    runs = [first, Run('plain', 1, EPOCHS, out), Run('warm', 0, EPOCHS, out, start=first)]
    trainings, said = begin(threads=3)
    with trainings:
        assert trainings.carry_out(runs) == {}
    names = ('plain-seed0', 'plain-seed1', 'warm-seed0')
    assert trained(out) == [f'{name} {epoch}' for name in names for epoch in (1, 2)]
    reports = [line for line in said if line.startswith('[')]
    assert [line[: line.index(',')] for line in reports] == [
        f'[{number}/3] {run.name}: val mAP 0.250' for number, run in enumerate(runs, 1)
    ]
    assert 'test mAP 0.500' in reports[0] and 'minutes gone, about 0 to go' in reports[-1]
    assert sum(line.startswith('$ ') for line in said) == 9
    assert (first.work_dir / 'train.log').read_text() == 'threads 3\n'
    # those to resume from are gone
    assert [path.name for path in first.work_dir.glob('*.pth')] == ['epoch_2.pth']

    trainings, said = begin()
    with trainings:
        assert trainings.carry_out(runs) == {}
    assert said == ['3 runs, done before: 3'] and len(trained(out)) == 6


def test_the_time_to_go_is_that_of_the_trainings_that_are_left():
    runs = [Run('plain', seed, EPOCHS, Path('out')) for seed in range(4)]
    only_tested, half_trained, *whole = runs
    work = {only_tested: 0, half_trained: 0.5, **dict.fromkeys(whole, 1)}
    took = {only_tested: 2}
    assert _times(2, work, took, jobs=1) == '2.0 minutes gone'
    took[half_trained] = 8
    assert _times(10, work, took, jobs=1) == '10.0 minutes gone, about 30 to go'
    # whatever failed meanwhile
    assert _times(15, work, took, jobs=2) == '15.0 minutes gone, about 5 to go'
    assert _times(60, work, took, jobs=2) == '60.0 minutes gone, about 0 to go'


def test_runs_that_the_first_ones_decide_on_are_carried_out_after_them(begin, out):
    """As a study's other seeds are, once its learning rates are chosen."""
    trainings, _ = begin()
    with trainings:
        assert trainings.carry_out([Run('plain', 0, EPOCHS, out)]) == {}
        assert trainings.carry_out([Run('plain', 1, EPOCHS, out)]) == {}
    assert trained(out) == [f'plain-seed{seed} {epoch}' for seed in (0, 1) for epoch in (1, 2)]


def test_several_run_at_a_times(begin, out):
    trainings, _ = begin(jobs=2)
    with trainings:
        assert not trainings.carry_out([Run('meets', seed, EPOCHS, out) for seed in (0, 1)])


def test_a_failure_is_shown_and_stops_only_what_starts_from_it(begin, out):
    broken = Run('broken', 0, EPOCHS, out)
    child, other = Run('child', 0, EPOCHS, out, start=broken), Run('other', 0, EPOCHS, out)
    trainings, said = begin()
    with trainings:
        failed = trainings.carry_out([broken, child, other])
    assert set(failed) == {broken, child} and other.is_done
    assert f'with 1; the end of {broken.work_dir}/train.log' in failed[broken]
    assert failed[broken].endswith('no such layer')
    assert failed[child] == 'since it starts from broken seed 0, which failed'
    assert any('broken seed 0: FAILED' in line and 'no such layer' in line for line in said)


def test_an_interruption_ends_trainings_and_they_go_on_from_their_checkpoint(begin, out, request):
    run, later = Run('hangs', 0, EPOCHS, out), Run('later', 0, EPOCHS, out)

    def interrupt():
        wait_for(run.work_dir / 'last_checkpoint')
        os.kill(os.getpid(), signal.SIGINT)

    # pytest's workers ignore it
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    threading.Thread(target=interrupt).start()
    trainings, _ = begin()
    with trainings, pytest.raises(KeyboardInterrupt):
        trainings.carry_out([run, later])
    assert not is_alive(int((out / 'hangs-seed0.pid').read_text()))
    assert trained(out) == ['hangs-seed0 1']

    trainings, _ = begin()
    with trainings:
        assert trainings.carry_out([run, later]) == {}
    assert trained(out) == ['hangs-seed0 1', 'hangs-seed0 2', 'later-seed0 1', 'later-seed0 2']


def test_a_folder_is_one_studys_as_long_as_a_training_of_a_killed_one_lives(begin, out):
    run = Run('hangs', 0, EPOCHS, out)
    trainings, _ = begin()
    with pytest.raises(BlockingIOError, match='another study, or a training that a killed one'):
        begin()
    thread = threading.Thread(target=trainings.carry_out, args=([run],))
    thread.start()
    wait_for(run.work_dir / 'last_checkpoint')
    trainings.lock.close()  # as when the study is killed
    with pytest.raises(BlockingIOError, match=str(out)):
        begin()
    os.kill(int((out / 'hangs-seed0.pid').read_text()), signal.SIGKILL)
    thread.join()
    with begin()[0] as trainings:
        assert trainings.carry_out([run]) == {}
    assert trained(out) == ['hangs-seed0 1', 'hangs-seed0 2']
