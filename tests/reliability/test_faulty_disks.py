"""Disks that fill up, turn read-only, lose a file or alter one, under a real training."""

import subprocess

import pytest

pytestmark = pytest.mark.long


@pytest.fixture
def disk(tmp_path):
    """disk('size=2m') mounts an empty file system of that size in the work_dir."""
    work_dir = tmp_path / 'work'
    work_dir.mkdir()

    def mount(options):
        command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(work_dir)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f'mounting a file system needs root: {mounted.stderr.strip()}')

    yield mount
    subprocess.run(['umount', '-l', str(work_dir)], capture_output=True)


def checkpoints(training):
    return {path.name for path in training.work_dir.glob('epoch_*')}


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(
    training, uninterrupted, disk, assert_same_weights
):
    size = (uninterrupted.work_dir / 'epoch_2.pth').stat().st_size
    disk(f'size={2 * size}')  # epoch 1 and the best fit, not one more beside them
    assert training.run() == 1
    assert 'bytes) could not be written: No space left on device' in training.output()
    assert checkpoints(training) == {'epoch_1.pth'}

    subprocess.run(['mount', '-o', 'remount,size=100m', str(training.work_dir)], check=True)
    assert training.run('--resume') == 0, training.output()
    assert_same_weights(training.weights(), uninterrupted.weights())


def test_a_read_only_work_dir_stops_the_run_before_its_first_step(training, disk):
    disk('ro')
    assert training.run() == 1
    assert f"Read-only file system: '{training.work_dir}" in training.output()
    assert 'Epoch(train)' not in training.output()


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize('damage', [cut, flip])
def test_with_last_checkpoint_lost_and_the_newest_damaged_it_goes_on_from_the_one_before(
    training, uninterrupted, assert_same_weights, damage
):
    options = ['default_hooks.checkpoint.max_keep_ckpts=2']
    assert training.run(options=options) == 0
    newest = training.work_dir / 'epoch_2.pth'
    newest.write_bytes(damage(newest.read_bytes()))
    (training.work_dir / 'last_checkpoint').unlink()

    assert training.run('--resume', options=options) == 0
    output = training.output()
    assert f'Not resumed from: checkpoint {newest} is not a whole checkpoint' in output
    assert 'resumed epoch: 1' in output
    assert_same_weights(training.weights(), uninterrupted.weights())


def test_with_every_checkpoint_damaged_it_stops_before_its_first_step(training):
    assert training.run() == 0
    for path in training.work_dir.glob('*.pth'):
        path.write_bytes(cut(path.read_bytes()))
    training.log.unlink()
    assert training.run('--resume') == 1
    assert f'{training.work_dir} has no checkpoint to resume from' in training.output()
    assert 'Epoch(train)' not in training.output()
