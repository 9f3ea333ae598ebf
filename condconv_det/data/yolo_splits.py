"""The splits that a YOLO data set's data.yaml or lists of images have.

Paths are relative to what Ultralytics has them relative to (`check_det_dataset`), but for its own
folder of data sets and the working folder.
"""

import os
from pathlib import Path
from typing import Any

from .coco_files import SPLITS
from .fault import Fault, counted
from .image_index import SPLIT_WORDS, ImageIndex, split_in
from .text_files import read_lines, visible_files
from .yolo import read_yamls


def read_splits(root: Path, index: ImageIndex, faults: list[Fault]) -> dict[Path, str]:
    """The split of each image that data.yaml or a list has; none if a path of theirs has no image.

    In data.yaml `train`, `val` and `test` each name a folder, a list of images, or several of
    these, relative to its `path`, to the file itself or to the images. Without it, train.txt,
    val.txt and test.txt are lists. An image of several splits is in the first of them.
    """
    lists: dict[Path, str] = {}
    again: set[Path] = set()
    entries = _entries(root, index)
    try:
        for split in SPLITS:
            for entry, bases in entries.get(split, ()):
                for image in _images(entry, bases, index, faults):
                    if lists.setdefault(image, split) != split:
                        again.add(image)
    except ValueError as error:
        # names of folders may say it, too
        if len({split_in(image) for image in index.paths} - {None}) < 2:
            detail = f'{error}; all images are dealt out anew'
            faults.append(Fault('splits not kept', root.name, detail))
        return {}
    if again:
        detail = f'{counted(len(again), "image")}, the first {min(again)}; used in the first'
        faults.append(Fault('image in several splits', root.name, detail))
    return lists


def _entries(root: Path, index: ImageIndex) -> dict[str, list[tuple[str, list[Path]]]]:
    """Paths by split, each with the folders that it may be relative to."""
    entries: dict[str, list[tuple[str, list[Path]]]] = {}
    for path, content in read_yamls(root):
        if not isinstance(content.get('train'), (str, list)):
            continue
        top = _with_slashes(content.get('path') or '')
        bases = [path.parent / top, path.parent, index.root]
        for key, value in content.items():
            if key in SPLIT_WORDS and value:
                values = value if isinstance(value, list) else [value]
                found = entries.setdefault(SPLIT_WORDS[key], [])
                found += [(_with_slashes(entry), bases) for entry in values]
    if entries:
        return entries
    for path in visible_files(root, '*.txt'):
        split = SPLIT_WORDS.get(path.stem.lower())
        if split and not index.has_stem(path):
            entries.setdefault(split, []).append((path.relative_to(root).as_posix(), [root]))
    return entries


def _with_slashes(path: Any) -> str:
    """A path as text, if it was written on Windows, too."""
    return str(path).replace('\\', '/')


def _images(entry: str, bases: list[Path], index: ImageIndex, faults: list[Fault]) -> list[Path]:
    """The images in a folder, or those that a list names.

    Raises:
        ValueError: there are none, or the list is not UTF-8.
    """
    top = os.path.abspath(index.root)  # and not resolved, for folders in it may be links
    # of Roboflow's `../train/images` the dots lead too far
    for name in (entry, entry.removeprefix('../')):
        for path in (Path(os.path.abspath(base / name)) for base in bases):
            if path.is_file():
                found = _listed(path, index, faults)
            else:
                found = [image for image in index.paths if Path(top, image).is_relative_to(path)]
            if found:
                return found
    raise ValueError(f'{entry} has no image')


def _listed(path: Path, index: ImageIndex, faults: list[Fault]) -> list[Path]:
    """The images that a list names; lines that name none are counted if others do."""
    images = {line: index.listed(line, path) for line in read_lines(path)}
    found = [image for image in images.values() if image]
    without = [line for line, image in images.items() if not image]
    if found and without:
        detail = f'{counted(len(without), "line")} of {path.name}, the first {without[0]}'
        faults.append(Fault('missing image', path.parent.name, detail))
    return found
