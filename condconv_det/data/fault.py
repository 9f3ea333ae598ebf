"""What the readers of annotations and images report."""

from typing import NamedTuple


class Fault(NamedTuple):
    """Something wrong in a data set's files, and what became of it."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f'{self.where}: {self.kind}: {self.detail}'


def counted(number: int, thing: str) -> str:
    """'1 image', '2 images'."""
    return f'{number} {thing}{"s" * (number != 1)}'


class UnusableImage(Exception):
    """An image that is left out with its boxes; `kind` is that of the fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
