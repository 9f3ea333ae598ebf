"""Text files as people's tools write them, and the files below a folder that are theirs."""

import os
import unicodedata
from pathlib import Path, PurePath


def visible_files(root: Path, *patterns: str) -> list[Path]:
    """The files below a folder, linked folders too, that match a pattern of `PurePath.match`.

    Sorted; capitals do not matter. Leaves out what is hidden, or in a hidden folder: macOS puts a
    `._name` beside a file, Jupyter a copy into `.ipynb_checkpoints`. A folder that is there twice
    counts once, so that a link to a folder above it does no harm.
    """
    patterns = tuple(pattern.lower() for pattern in patterns)
    found, entered = [], set()
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = sorted(
            (name for name in inside if not name.startswith('.')),
            key=lambda name: (os.path.islink(os.path.join(folder, name)), name),
        )
        real = os.path.realpath(folder)
        if real in entered:
            inside.clear()
            continue
        entered.add(real)
        for name in names:
            path = Path(folder, name)
            lower = PurePath(str(path.relative_to(root)).lower())
            if not name.startswith('.') and any(map(lower.match, patterns)):
                found.append(path)
    return sorted(found)


def composed(text: str) -> str:
    """Text whose letters have their accents in one character, by which names are compared.

    macOS writes `ä` into an archive's names as two, where annotations have one.
    """
    return unicodedata.normalize('NFC', text)


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
