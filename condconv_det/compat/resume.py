"""Checkpoints that are there whole or not at all, and a resume from the newest whole one.

mmengine 0.10 deletes the checkpoint that a new one replaces, then writes the new one in place;
killed meanwhile, it leaves half a file under the final name. It resumes from what `last_checkpoint`
names, whole or not, and starts from scratch without a word where that file is gone. Needed until
mmengine does otherwise.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import ModuleType

from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from .checkpoints import CheckpointError, check_records, read_training_meta


def mend(runner: ModuleType) -> None:
    """Makes mmengine.runner.runner write, replace and find checkpoints safely."""
    LocalBackend.put = _put
    CheckpointHook._save_checkpoint_with_step = _removing_last(_plain_save_with_step)
    CheckpointHook._save_best_checkpoint = _removing_last(_plain_save_best)
    runner.find_latest_checkpoint = find_newest_whole_checkpoint


def find_newest_whole_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that `--resume` goes on from; None in a folder where nothing was trained.

    Looks at every `*.pth` in the work_dir, and in the folder that `last_checkpoint` names, and at
    what that names, whatever its ending. What `last_checkpoint` names is older than the newest if
    the training was killed between the two, and a clock may go back: it is passed over, if whole,
    only for one that is later both by time and by iteration. Without it the one written last
    counts. Warns of each damaged file that it meets.

    Raises:
        CheckpointError: there are checkpoints, or a `last_checkpoint`, but none to go on from.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if '://' in named:
        return named  # in a store that cannot be listed from here
    folders, listed = {os.path.realpath(work_dir)}, ''
    if named:
        folder, name = os.path.split(named)
        folders.add(os.path.realpath(folder))
        listed = os.path.join(os.path.realpath(folder), name)  # as it is listed below
    paths = {str(path) for folder in folders for path in Path(folder).glob('*.pth')}
    # what is named may have another ending, by a `filename_tmpl`
    found = sorted(filter(os.path.isfile, {*paths, listed}))

    faults = []
    if named and listed not in found:
        faults.append(f'{pointer} names {named!r}, which does not exist')
    newest = _newest_whole(found, listed, faults)
    if newest is None and (faults or found):
        reasons = faults or [f'{path} holds weights alone, or is not by mmengine' for path in found]
        raise CheckpointError(
            '\n  '.join([f'{work_dir} has no checkpoint to resume from:', *reasons])
            + '\nName another with --resume FILE, or train from scratch without --resume.'
        )
    for fault in faults:
        print_log(f'Not resumed from: {fault}', logger='current', level=logging.WARNING)
    return newest


def _newest_whole(paths: list[str], named: str, faults: list[str]) -> str | None:
    """Of the checkpoints that a training can go on from; adds to `faults` what damage it met.

    Args:
        named: by `last_checkpoint`; it counts before those that are not later in all.
    """
    written = {}
    for path in paths:
        try:
            meta = read_training_meta(path)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            if meta is not None:
                written[path] = meta
    newest_first = sorted(
        written, key=lambda path: (written[path]['time'], written[path]['iter']), reverse=True
    )
    if named in written:
        first = [
            path
            for path in newest_first
            if path == named
            or all(written[path][key] > written[named][key] for key in ('time', 'iter'))
        ]
        newest_first = list(dict.fromkeys([*first, *newest_first]))
    for path in newest_first:
        try:
            check_records(path)
            return path
        except CheckpointError as error:
            faults.append(str(error))
    return None


_plain_save_with_step = CheckpointHook._save_checkpoint_with_step
_plain_save_best = CheckpointHook._save_best_checkpoint


def _removing_last(save: Callable) -> Callable:
    """`save`, a method of CheckpointHook, which then removes what it replaces after, not before."""

    @wraps(save)
    def save_then_remove(self: CheckpointHook, *args, **kwargs) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            return save(self, *args, **kwargs)
        replaced = {}
        # this instance's, in place of the method
        self.file_backend.remove = lambda path: replaced.update({path: os.stat(path)})
        try:
            save(self, *args, **kwargs)
        finally:
            vars(self.file_backend).pop('remove', None)
        for path, old in replaced.items():
            if os.path.samestat(old, os.stat(path)):  # else the new one has the same name
                self.file_backend.remove(path)

    return save_then_remove


@wraps(LocalBackend.put)
def _put(self: LocalBackend, obj: bytes, filepath: str | Path) -> None:
    path = Path(filepath)
    part = path.with_name(path.name + '.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        if os.name == 'posix':  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            with suppress(OSError):  # some shared folders cannot be flushed; the file was
                os.fsync(folder)
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(
            error.errno, f'{path} ({len(obj)} bytes) could not be written: {error.strerror}'
        ) from error
