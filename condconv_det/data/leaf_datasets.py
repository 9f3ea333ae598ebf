"""What is inside the wrappers of data sets."""

from collections.abc import Iterator
from typing import Any


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets that read files, inside a data set and its wrappers, or inside its config."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for part in inner:
            yield from leaf_datasets(part)
