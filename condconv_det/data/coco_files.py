"""COCO json files of a data set's splits, written."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .whole_files import written_whole

SPLITS = ('train', 'val', 'test')


def write_splits(folder: Path, splits: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Writes `folder/{split}.json` for each split; all take their names when the last is written.

    Raises:
        OSError: a file cannot be written; those that were there stay as they are.
    """
    files = {split: folder / f'{split}.json' for split in splits}
    with ExitStack() as stack:
        for split, data in splits.items():
            stack.enter_context(written_whole(files[split])).write_text(json.dumps(data))
    return files
