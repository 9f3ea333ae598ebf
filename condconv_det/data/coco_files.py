"""COCO json files of a data set's splits, written."""

import json
import os
from pathlib import Path
from typing import Any

SPLITS = ('train', 'val', 'test')


def write_splits(folder: Path, splits: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Writes `folder/{split}.json` for each split beside its place, then moves all into place.

    Raises:
        OSError: a file cannot be written; those that were there stay as they are.
    """
    files = {split: folder / f'{split}.json' for split in splits}
    partial = {split: folder / f'.{split}.json.partial-{os.getpid()}' for split in splits}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for split, data in splits.items():
            partial[split].write_text(json.dumps(data))
        for split in splits:
            partial[split].replace(files[split])
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return files
