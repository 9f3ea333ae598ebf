"""Files and folders that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write that takes its final name when the block ends, and goes if that fails.

    Args:
        path: final name; its folder is made if need be.

    Raises:
        OSError: nothing can be written there; raised before the block.
    """
    final = path.resolve()  # of a link, the file that it stands for
    partial = final.with_name(f'.{final.name}.partial-{os.getpid()}{path.suffix}')
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.is_dir():  # it would be found out when all is written
            raise IsADirectoryError('it is a folder')
        partial.touch()
    except OSError as error:
        raise OSError(f'{path} cannot be written: {error}') from error
    try:
        yield partial
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its final name when the block ends, and goes if that fails.

    Args:
        path: final name; its parent is made if need be.

    Raises:
        FileExistsError: there is a file, or a folder that holds anything; raised before the block.
        OSError: nothing can be written there; raised before the block.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f'{path} exists and is not an empty folder; name another, or remove it'
        )
    final = path.resolve()  # of a link, the folder that it stands for
    partial = final.with_name(f'.{final.name}.partial-{os.getpid()}')
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OSError(f'{path} cannot be written: {error.strerror}') from error
    try:
        yield partial
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
