import errno
import os
import random
import resource
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import runner as mmengine_runner

from condconv_det.compat import resume
from condconv_det.compat.checkpoints import CheckpointError, load_from_local

find = mmengine_runner.find_latest_checkpoint  # what `--resume` calls


@pytest.fixture
def epoch(tmp_path):
    """epoch(3) writes epoch_3.pth; returns its path."""

    def write(number, **kwargs):
        content = dict(
            meta=dict(epoch=number, iter=10 * number, time=f'20260101_0000{number:02}'),
            state_dict=dict(weight=torch.full((50, 20), float(number))),
            optimizer=dict(state={0: dict(exp_avg=torch.randn(50, 20))}),
        )
        path = tmp_path / f'epoch_{number}.pth'
        torch.save({**content, **kwargs}, path)
        (tmp_path / 'last_checkpoint').write_text(str(path))
        return path

    return write


def test_the_newest_is_found_whatever_last_checkpoint_names(epoch, tmp_path):
    newest = epoch(10)
    epoch(9)  # as if killed between writing epoch_10.pth and naming it
    assert find(str(tmp_path)) == str(newest)
    (tmp_path / 'last_checkpoint').write_bytes(b'\xff\x00\xfe')
    assert find(str(tmp_path)) == str(newest)
    (tmp_path / 'last_checkpoint').unlink()
    assert find(str(tmp_path)) == str(newest)


def test_written_last_wins_over_the_higher_number(epoch, tmp_path):
    """After a new start in an old folder, or a resume from an earlier epoch."""
    epoch(7)
    again = epoch(3, meta=dict(epoch=3, iter=30, time='20260102_000000'))
    assert find(str(tmp_path)) == str(again)
    (tmp_path / 'last_checkpoint').unlink()
    assert find(str(tmp_path)) == str(again)


def test_a_clock_that_went_back_does_not_undo_an_epoch(epoch, tmp_path, monkeypatch):
    before = epoch(3, meta=dict(epoch=3, iter=30, time='20261025_024500'))
    last = epoch(4, meta=dict(epoch=4, iter=40, time='20261025_021500'))
    assert find(str(tmp_path)) == str(last)
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / 'last_checkpoint').write_text(f'{tmp_path.name}/{last.name}')
    assert find(str(tmp_path)) == str(last)
    last.write_bytes(b'')
    assert find(str(tmp_path)) == str(before)


def test_checkpoints_in_a_folder_of_their_own_are_found(epoch, tmp_path):
    path = epoch(1)
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(path))
    assert find(str(work_dir)) == str(path)


def test_what_last_checkpoint_names_is_found_whatever_its_ending(epoch, tmp_path):
    for number in (1, 2):
        renamed = Path(epoch(number)).rename(tmp_path / f'epoch_{number}.pt')
    (tmp_path / 'last_checkpoint').write_text(str(renamed))
    assert find(str(tmp_path)) == str(renamed)


def test_weights_alone_are_passed_over(epoch, tmp_path):
    last = epoch(1)
    torch.save(dict(meta=dict(epoch=2), state_dict={}), tmp_path / 'best_mAP_epoch_2.pth')
    assert find(str(tmp_path)) == str(last)
    last.unlink()
    (tmp_path / 'last_checkpoint').unlink()
    with pytest.raises(CheckpointError, match=r'best_mAP_epoch_2.pth holds weights alone'):
        find(str(tmp_path))


def test_a_checkpoint_in_the_format_before_torch_1_6_is_found(epoch, tmp_path):
    path = epoch(1)
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    assert find(str(tmp_path)) == str(path)


def test_a_new_folder_starts_from_scratch(tmp_path):
    assert find(str(tmp_path)) is None


def test_a_damaged_newest_is_skipped_with_a_warning(epoch, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(resume, 'print_log', lambda text, **kwargs: logged.append(text))
    before, newest = epoch(1), epoch(2)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert find(str(tmp_path)) == str(before)
    assert len(logged) == 1
    assert logged[0].startswith(f'Not resumed from: checkpoint {newest} is not a whole checkpoint')


def test_with_nothing_whole_left_it_stops_and_says_why(epoch, tmp_path):
    paths = [epoch(1), epoch(2)]
    for path in paths:
        path.write_bytes(b'')
    with pytest.raises(CheckpointError) as error:
        find(str(tmp_path))
    assert all(f'{path} is not a whole checkpoint' in str(error.value) for path in paths)
    for path in paths:
        path.unlink()
    with pytest.raises(CheckpointError, match="epoch_2.pth', which does not exist"):
        find(str(tmp_path))


def flip(data, rng):
    data = bytearray(data)
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


@pytest.mark.parametrize('damage', [cut, flip])
def test_200_damaged_files_give_the_whole_one_before_or_the_same_weights(epoch, tmp_path, damage):
    before, newest = epoch(1), epoch(2)
    whole, data = load_from_local(str(newest)), newest.read_bytes()
    rng = random.Random(0)
    skipped = 0
    for _ in range(200):
        newest.write_bytes(damage(data, rng))
        found = find(str(tmp_path))
        if found == str(before):
            skipped += 1
            continue
        loaded = load_from_local(found)
        assert loaded['meta'] == whole['meta']
        for part in ('state_dict', 'optimizer'):
            torch.testing.assert_close(loaded[part], whole[part], rtol=0, atol=0)
    assert skipped > 150  # a byte of padding may be flipped without harm


@pytest.fixture
def limited_file_size():
    """No file may grow beyond 10 kB: writing fails midway, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_half(tmp_path, limited_file_size):
    path = tmp_path / 'epoch_1.pth'
    LocalBackend().put(b'old', path)
    with pytest.raises(OSError, match=r'epoch_1.pth \(20000 bytes\) could not be written'):
        LocalBackend().put(bytes(20_000), path)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['epoch_1.pth']


def test_a_file_system_that_flushes_no_folders_is_written_to(tmp_path, monkeypatch):
    plain = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        plain(descriptor)

    monkeypatch.setattr(os, 'fsync', refuse_folders)
    LocalBackend().put(b'new', tmp_path / 'epoch_1.pth')
    assert (tmp_path / 'epoch_1.pth').read_bytes() == b'new'


class Runner:
    """As much of mmengine's runner as CheckpointHook needs; `saved` sees what is in the folder."""

    def __init__(self, work_dir, saving):
        self.work_dir, self.save_checkpoint = str(work_dir), saving
        self.message_hub = MessageHub.get_instance(f'test_resume {work_dir}')
        self.logger = SimpleNamespace(info=print)
        self.epoch = self.iter = 0

    def train_epoch(self, hook, **metrics):
        hook.after_train_epoch(self)
        self.epoch += 1
        if metrics:
            hook.after_val_epoch(self, metrics)


def test_an_outdated_checkpoint_goes_only_once_the_new_one_is_written(tmp_path):
    seen = []

    def save(out_dir, filename, *args, **kwargs):
        seen.append((filename, sorted(path.name for path in tmp_path.glob('*.pth'))))
        LocalBackend().put(b'', tmp_path / filename)

    hook = CheckpointHook(interval=1, max_keep_ckpts=1, save_best='mAP')
    runner = Runner(tmp_path, save)
    hook.before_train(runner)
    runner.train_epoch(hook, mAP=0.1)
    runner.train_epoch(hook, mAP=0.2)
    first = ['best_mAP_epoch_1.pth', 'epoch_1.pth']
    assert seen[3:5] == [
        ('epoch_2.pth', first),
        ('best_mAP_epoch_2.pth', ['best_mAP_epoch_1.pth', 'epoch_2.pth']),
    ]
    assert sorted(os.listdir(tmp_path)) == [
        'best_mAP_epoch_2.pth',
        'epoch_2.pth',
        'last_checkpoint',
    ]


def test_a_failed_write_removes_nothing(tmp_path):
    def save(out_dir, filename, *args, **kwargs):
        if filename == 'epoch_2.pth':
            raise OSError('disk full')
        LocalBackend().put(b'', tmp_path / filename)

    hook = CheckpointHook(interval=1, max_keep_ckpts=1)
    runner = Runner(tmp_path, save)
    hook.before_train(runner)
    runner.train_epoch(hook)
    with pytest.raises(OSError, match='disk full'):
        runner.train_epoch(hook)
    assert sorted(os.listdir(tmp_path)) == ['epoch_1.pth', 'last_checkpoint']


def test_the_best_checkpoint_stays_where_the_next_one_has_its_name(tmp_path):
    """A hook that counts epochs in a training that has none, mmengine's default."""

    def save(out_dir, filename, *args, **kwargs):
        LocalBackend().put(b'', tmp_path / filename)

    hook = CheckpointHook(interval=1, save_best='mAP')
    runner = Runner(tmp_path, save)
    hook.before_train(runner)
    for mAP in (0.1, 0.2):
        hook.after_val_epoch(runner, dict(mAP=mAP))
        assert os.listdir(tmp_path) == ['best_mAP_epoch_0.pth']


@pytest.mark.parametrize(
    'meta',
    [
        dict(epoch=2, time='20270101_000000'),
        dict(iter=20, time=None),
        dict(iter=20, time='Wed Jun 17 09:15:44 2020'),  # mmcv's, before mmengine
        'of another program',
    ],
)
def test_other_programs_checkpoints_are_passed_over(epoch, tmp_path, meta):
    foreign, mine = epoch(2, meta=meta), epoch(1)
    (tmp_path / 'latest.pth').symlink_to('nowhere')
    (tmp_path / 'folder.pth').mkdir()
    assert find(str(tmp_path)) == str(mine)
    mine.unlink()
    (tmp_path / 'last_checkpoint').unlink()
    with pytest.raises(CheckpointError, match=f'{foreign} holds weights alone, or is not by'):
        find(str(tmp_path))
