"""A folder of images and boxes in any of three formats, read as one COCO data set."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .check_coco import read_coco
from .coco_source import coco_files, read_coco_source
from .decode import SUFFIXES
from .fault import Fault, UnusableImage
from .image_index import ImageIndex
from .source_records import ReadSize
from .text_files import visible_files
from .voc_source import read_voc_source
from .voc_xml import read_xml, text_of
from .yolo import has_labels
from .yolo_source import read_yolo_source

FORMATS = ('coco', 'voc', 'yolo')


class Source(NamedTuple):
    """What `read_source` read.

    Args:
        format: 'coco', 'voc' or 'yolo'.
        data: COCO's; file names are relative to the folder of images. Every class has a box.
        splits: the source's own, by image id: 'train', 'val' or 'test' where its files say so.
        faults: what is wrong, and what became of it.
    """

    format: str
    data: dict[str, Any]
    splits: dict[int, str]
    faults: list[Fault]


def read_source(
    root: Path,
    index: ImageIndex,
    read_size: ReadSize,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    listed_only: bool = True,
) -> Source:
    """Reads a data set, whatever its folders are called.

    COCO: every json with images, annotations and categories, or the one named. Pascal VOC: every
    xml with a root `annotation`, and ImageSets/Main if there are lists. YOLO: a text file for an
    image; the classes of data.yaml or classes.txt. Annotations belong to the image of their name,
    the nearest one where several have it. A split is read from lists, from YOLO's data.yaml, or
    from names of folders and files, such as `valid` or `instances_train2017.json`.

    What cannot be used is left out and named in `faults`.

    Args:
        root: folder, or a COCO json.
        index: of the images.
        read_size: width and height of an image; may raise OSError or ValueError.
        format: one of 'coco', 'voc' and 'yolo'; by default what the files are.
        classes: those to keep, in this order; for YOLO, names of all its numbers where no file has
            them. By default all that have a box.
        listed_only: leave out the images of Pascal VOC and YOLO that are in no list, where there
            are lists for train and for another split.

    Raises:
        ValueError: the files are of no format or of several, or not one box can be used.
    """
    format = format or find_format(root, index)
    faults: list[Fault] = []
    readers = dict(
        coco=read_coco_source,
        voc=partial(read_voc_source, listed_only=listed_only),
        yolo=partial(read_yolo_source, classes=classes, listed_only=listed_only),
    )
    records = readers[format](root, index, read_size, faults)
    used = Counter(
        records.names[annotation['category_id'] - 1] for annotation in records.annotations
    )
    wanted = classes or records.names
    kept = [name for name in wanted if used[name]]
    if not kept:
        found = ', '.join(sorted(used)) or 'none'
        kinds = ', '.join(f'{kind} {n}' for kind, n in Counter(f.kind for f in faults).items())
        first = f'; the first: {faults[0]}' if faults else ''
        raise ValueError(
            f'no box of {root} can be used; classes with boxes: {found}; faults: '
            f'{kinds or "none"}{first}'
        )
    faults += [
        Fault('class without boxes', root.name, f'{name}; left out')
        for name in wanted
        if name not in kept
    ]
    numbers = {records.names.index(name) + 1: number for number, name in enumerate(kept, 1)}
    annotations = [a for a in records.annotations if a['category_id'] in numbers]
    for number, annotation in enumerate(annotations, 1):
        annotation.update(id=number, category_id=numbers[annotation['category_id']])
    data = dict(
        info=dict(description=root.resolve().stem),
        images=records.images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in enumerate(kept, 1)],
    )
    return Source(format, data, records.splits, faults)


def find_format(root: Path, index: ImageIndex) -> str:
    """The format of a folder's files.

    Raises:
        ValueError: there is none, or there are several.
    """
    if root.is_file():
        if root.suffix == '.json':
            return 'coco'
        raise ValueError(f'{root} is a file: expected a folder, or a COCO json')
    if not root.is_dir():
        raise ValueError(f'the folder {root} does not exist')
    files, unread = coco_files(root)
    found = ['coco'] if files else []
    if any(_is_voc(path, index) for path in visible_files(root, '*.xml')):
        found.append('voc')
    if any(index.has_stem(path) and has_labels(path) for path in visible_files(root, '*.txt')):
        found.append('yolo')
    if len(found) > 1:
        raise ValueError(f'{root} has boxes in several formats, {found}: name one by `--format`')
    if not found:
        raise ValueError(
            f'{root} has no boxes: expected COCO json, or the xml of Pascal VOC or text files of '
            'YOLO, lines of numbers, with the names of images, such as '
            f'{index.paths[0].with_suffix(".xml").name}; found {_files_by_ending(root)}'
            + ''.join(f'; {error}' for error in unread[:1])
        )
    return found[0]


def _is_voc(path: Path, index: ImageIndex) -> bool:
    """Whether an xml has the name of an image, or says one."""
    if index.has_stem(path):
        return True
    try:
        tree = read_xml(path)
    except UnusableImage:
        return False
    name = text_of(tree, 'filename')
    return tree.tag == 'annotation' and index.named(name, path.parent) is not None


def _files_by_ending(root: Path) -> str:
    """How many files of each ending there are but images, and what the first holds."""
    by_ending: dict[str, list[Path]] = {}
    for path in visible_files(root, '*'):
        if path.suffix.lower() not in SUFFIXES:
            by_ending.setdefault(path.suffix.lower(), []).append(path)
    found = [
        f'{len(paths)} {ending or "without ending"}, the first {paths[0].relative_to(root)}'
        f'{_beginning(paths[0])}'
        for ending, paths in by_ending.items()
    ]
    return '; '.join(found) or 'images alone'


def _beginning(path: Path) -> str:
    """The first keys of a json or the first line of a text, which tell whose format it is."""
    try:
        if path.suffix.lower() == '.json':
            data = read_coco(path, 'utf-8-sig')
            return f' with {", ".join(list(data)[:5])}' if isinstance(data, dict) else ', a list'
        with path.open(encoding='utf-8-sig') as file:  # which may be large
            line = file.readline(60).strip()
        return f' with {line!r}' if line else ''
    except (OSError, ValueError):
        return ''
