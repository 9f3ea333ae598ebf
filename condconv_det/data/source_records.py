"""What the readers of COCO json, Pascal VOC and YOLO find, in one form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .fault import Fault, UnusableImage, counted

ReadSize = Callable[[Path], tuple[int, int]]


class Records:
    """What a reader found: COCO's images and annotations, numbered as they come.

    Args:
        names: of the classes; the first is category 1.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.splits: dict[int, str] = {}

    def add(
        self, path: Path, size: tuple[int, int], split: str | None, keys: dict | None = None
    ) -> int:
        """Adds an image; returns its id."""
        number = len(self.images) + 1
        record = dict(keys or {}, id=number, file_name=path.as_posix())
        record.update(width=size[0], height=size[1])
        self.images.append(record)
        if split is not None:
            self.splits[number] = split
        return number


def size_of(path: Path, read_size: ReadSize) -> tuple[int, int]:
    """Width and height of an image; raises UnusableImage if it cannot be read."""
    try:
        return read_size(path)
    except (OSError, ValueError) as error:
        raise UnusableImage('broken image', f'{path}: {error}') from error


def name_left_out(
    kind: str, thing: str, left_out: Sequence[Any], root: Path, faults: list[Fault]
) -> None:
    """One fault for all that is left out, if anything is."""
    if left_out:
        detail = f'{counted(len(left_out), thing)} left out, the first {left_out[0]}'
        faults.append(Fault(kind, root.name, detail))
