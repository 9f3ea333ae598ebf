"""Trainings, or parts of them, killed with SIGKILL, and resumed."""

import os
import random
import re
import resource
import signal
import time
from functools import partial

import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import LocalBackend
from torch.utils.data import get_worker_info

pytestmark = pytest.mark.long


def die_while_writing(name):
    """Has the kernel kill the process when half of that checkpoint is written."""
    put = LocalBackend.put

    def put_half(self, obj, filepath):
        if filepath.endswith(name):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(obj) // 2, len(obj)))
        put(self, obj, filepath)

    LocalBackend.put = put_half


def test_killed_while_writing_a_checkpoint_it_goes_on_from_the_one_before(
    training, uninterrupted, assert_same_weights
):
    assert training.run(before=partial(die_while_writing, 'epoch_2.pth')) == -signal.SIGXFSZ
    kept = {path.name for path in training.work_dir.glob('epoch_*')}
    assert kept == {'epoch_1.pth', 'epoch_2.pth.part'}

    assert training.run('--resume') == 0, training.output()
    assert 'resumed epoch: 1' in training.output()
    assert_same_weights(training.weights(), uninterrupted.weights())
    assert {path.name for path in training.work_dir.glob('epoch_*')} == {'epoch_2.pth'}


def die_at_renaming(name, renamed):
    """Has the process kill itself when that checkpoint gets its name, before or after."""
    replace = os.replace

    def replace_and_die(part, path):
        if path.name == name and not renamed:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(part, path)
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die


def die_before_removing(name):
    """Has the process kill itself when that checkpoint is to go for a newer one."""
    remove = LocalBackend.remove

    def die_or_remove(self, path):
        if str(path).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        remove(self, path)

    LocalBackend.remove = die_or_remove


@pytest.mark.parametrize(
    'die, kept',
    [
        (partial(die_at_renaming, 'epoch_2.pth', False), ['epoch_1.pth', 'epoch_2.pth.part']),
        (partial(die_at_renaming, 'epoch_2.pth', True), ['epoch_1.pth', 'epoch_2.pth']),
        (partial(die_before_removing, 'epoch_1.pth'), ['epoch_1.pth', 'epoch_2.pth']),
    ],
    ids=['before its name', 'with its name', 'before the old one goes'],
)
def test_killed_around_a_checkpoint_it_goes_on_from_the_newest_whole_one(
    training, uninterrupted, assert_same_weights, die, kept
):
    assert training.run(before=die) == -signal.SIGKILL
    assert sorted(path.name for path in training.work_dir.glob('epoch_*')) == kept

    assert training.run('--resume') == 0, training.output()
    assert f'resumed epoch: {newest_epoch(kept)}' in training.output()
    assert_same_weights(training.weights(), uninterrupted.weights())


def newest_epoch(names):
    """Of whole checkpoints; None if there is none."""
    epochs = (re.fullmatch(r'epoch_(\d+)\.pth', name) for name in names)
    return max((int(match[1]) for match in epochs if match), default=None)


def test_killed_at_a_random_moment_it_ends_with_the_same_weights(
    training, uninterrupted, assert_same_weights
):
    training.start()
    time.sleep(random.Random(0).uniform(1, 4))
    training.kill()
    assert training.run('--resume') == 0, training.output()
    assert_same_weights(training.weights(), uninterrupted.weights())


def kill_workers_of_epoch_2(work_dir):
    """Has each worker that loads an image after epoch 1 kill itself."""
    load = LoadImageFromFile.transform

    def load_or_die(self, results):
        if get_worker_info() is not None and (work_dir / 'epoch_1.pth').exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, results)

    LoadImageFromFile.transform = load_or_die


def test_a_worker_that_dies_ends_the_training_which_goes_on_from_the_last_checkpoint(
    training, uninterrupted, assert_same_weights
):
    status = training.run(
        options=['train_cfg.val_interval=2'],
        before=partial(kill_workers_of_epoch_2, training.work_dir),
    )
    assert status == 1
    error = r'RuntimeError: DataLoader worker \(pid.* (is killed by signal: Killed|exited unexp)'
    assert re.search(error, training.output()), training.output()

    assert training.run('--resume') == 0, training.output()
    assert 'resumed epoch: 1' in training.output()
    assert_same_weights(training.weights(), uninterrupted.weights())


ITERATIONS = """
_base_ = '{}'

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=4)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=6)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4))
log_processor = dict(by_epoch=False)
"""


def test_a_training_that_counts_iterations_ends_with_the_same_weights_too(
    training, training_config, tmp_path, assert_same_weights
):
    config = tmp_path / 'iterations.py'
    config.write_text(ITERATIONS.format(training_config))
    whole = type(training)(config, tmp_path / 'uninterrupted')
    assert whole.run() == 0, whole.output()

    training = type(training)(config, training.work_dir)
    assert training.run(before=partial(die_while_writing, '/iter_8.pth')) == -signal.SIGXFSZ
    assert training.run('--resume') == 0, training.output()
    assert 'resumed epoch: 0, iter: 4' in training.output()
    assert_same_weights(training.weights('iter_8.pth'), whole.weights('iter_8.pth'))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_killed_24_times_it_ends_with_the_same_weights(
    training, training_config, tmp_path, assert_same_weights, num_workers
):
    options = [
        'train_cfg.max_epochs=48',  # of which 24 kills leave some
        f'train_dataloader.num_workers={num_workers}',
        f'train_dataloader.persistent_workers={bool(num_workers)}',
    ]
    whole = type(training)(training_config, tmp_path / 'uninterrupted')
    begun = time.monotonic()
    assert whole.run(options=options) == 0, whole.output()
    epoch = (time.monotonic() - begun) / 48

    rng = random.Random(1)
    expected = []
    for _ in range(24):
        expected.append(newest_epoch(path.name for path in training.work_dir.glob('*')))
        training.start('--resume', options=options)
        training.wait_for_first_step()
        time.sleep(rng.uniform(0, 1.5 * epoch))
        assert training.kill() == -signal.SIGKILL, 'it was done before it could be killed'
    expected.append(newest_epoch(path.name for path in training.work_dir.glob('*')))
    assert training.run('--resume', options=options) == 0, training.output()
    resumed = re.findall(r'resumed epoch: (\d+)', training.output())
    assert [*map(int, resumed)] == [epoch for epoch in expected if epoch]
    assert len(resumed) >= 12
    assert_same_weights(training.weights('epoch_48.pth'), whole.weights('epoch_48.pth'))


def test_same_seed_same_weights_after_50_steps(
    training, training_config, tmp_path, assert_same_weights
):
    again = type(training)(training_config, tmp_path / 'again')
    options = ['train_cfg.max_epochs=17', 'train_cfg.val_interval=17']  # 3 steps each
    assert training.run(options=options) == again.run(options=options) == 0
    assert_same_weights(training.weights('epoch_17.pth'), again.weights('epoch_17.pth'))


def test_ctrl_c_ends_with_the_command_that_goes_on(training):
    training.start('--resume')
    training.wait_for_first_step()
    assert training.interrupt() == 130, training.output()
    assert 'Traceback' not in training.output()
    last = training.output().splitlines()[-1]
    assert last.startswith('ended by Ctrl+C; to go on: python') and last.count('--resume') == 1
