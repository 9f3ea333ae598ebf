"""Text files as people's tools write them, and the files below a folder that are theirs."""

from pathlib import Path


def visible_files(root: Path, *patterns: str) -> list[Path]:
    """The files below a folder that match a pattern of `Path.rglob`, sorted.

    Leaves out what is hidden, or in a hidden folder: macOS puts a `._name` beside a file, Jupyter a
    copy into `.ipynb_checkpoints`.
    """
    found = {path for pattern in patterns for path in root.rglob(pattern)}
    return sorted(
        path
        for path in found
        if not any(part.startswith('.') for part in path.relative_to(root).parts)
    )


def read_text(path: Path) -> str:
    """A file of UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8: {error}') from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file of UTF-8 that are not blank, without the blanks around them.

    Raises:
        OSError, ValueError: see `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
