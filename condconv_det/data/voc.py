"""Pascal VOC folders to COCO json, with every fault of the source named."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from .coco_files import SPLITS, write_splits
from .decode import SUFFIXES, decoded_size
from .fault import Fault, UnusableImage
from .source_records import ReadSize, size_of
from .text_files import read_lines
from .voc_xml import check_size, class_names, read_objects, read_xml

_EXTENSIONS = ('.jpg', *SUFFIXES, *map(str.upper, SUFFIXES), '')  # '' of 7.jpg.xml


class Conversion(NamedTuple):
    """What `convert_voc` wrote and what it found wrong."""

    files: dict[str, Path]  # json by split
    classes: tuple[str, ...]
    images: dict[str, int]  # by split
    boxes: dict[str, Counter[str]]  # by split and class
    faults: list[Fault]


def convert_voc(
    root: Path | str,
    out: Path | str,
    splits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    read_size: ReadSize = decoded_size,
) -> Conversion:
    """Write `out/annotations/{split}.json` for a Pascal VOC folder, which is only read.

    File names in the json are relative to `root/JPEGImages`. Sizes are those of the image files; an
    image whose xml says another one is left out, as its boxes lie elsewhere. An object that cannot
    be used is left out, a box that crosses the border is clipped, an image that cannot be used is
    left out with its objects; each is in the result's `faults`. Existing files are replaced when
    all new ones are complete.

    Args:
        root: holds Annotations/*.xml, JPEGImages and, if there are splits, ImageSets/Main/*.txt.
        out: a folder outside `root`; made if need be.
        splits: by default those of train, val and test that ImageSets/Main has, or, where it has
            no list at all, one split 'all' of every annotation.
        classes: by default every name in any file of Annotations, sorted, whatever the splits.
        read_size: width and height of an image; may raise OSError or ValueError. The default
            decodes each to its end, behind a progress bar; `loaded_size` reads headers.

    Raises:
        ValueError: an argument is unusable, or not one box of the source can be converted.
        OSError: a file cannot be written.
    """
    root, out = Path(root), Path(out)
    for folder in ('Annotations', 'JPEGImages'):
        if not (root / folder).is_dir():
            raise ValueError(f'{root} is not a Pascal VOC folder: it has no folder {folder}')
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f'the output folder {out} must lie outside the VOC folder {root}')
    names = _image_names(root, splits)
    if classes is None:
        classes = _find_classes(root)
    _check_distinct('class', classes)

    faults: list[Fault] = []
    converted = {
        split: _convert_split(root, split, names[split], classes, read_size, faults)
        for split in names
    }
    if not any(data['annotations'] for data in converted.values()):
        kinds = ', '.join(f'{kind} {n}' for kind, n in Counter(f.kind for f in faults).items())
        first = f'; the first: {faults[0]}' if faults else ''
        raise ValueError(f'no box of {root} could be converted ({kinds or "no objects"}){first}')
    return Conversion(
        files=write_splits(out / 'annotations', converted),
        classes=tuple(classes),
        images={split: len(data['images']) for split, data in converted.items()},
        boxes={
            split: Counter(classes[a['category_id'] - 1] for a in data['annotations'])
            for split, data in converted.items()
        },
        faults=faults,
    )


def _check_distinct(what: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f'{what} given more than once: {", ".join(repeated)}')


def _image_names(root: Path, splits: Sequence[str] | None) -> dict[str, list[str]]:
    """The names in each split's list, in the list's order."""
    lists = root / 'ImageSets' / 'Main'
    found = sorted(path.stem for path in lists.glob('*.txt'))
    if splits is None:
        if not found:
            return {'all': sorted(path.stem for path in (root / 'Annotations').glob('*.xml'))}
        splits = [split for split in SPLITS if split in found]
        if not splits:
            raise ValueError(f'{lists} has none of {SPLITS}; name splits out of: {found}')
    _check_distinct('split', splits)
    missing = [split for split in splits if split not in found]
    if missing:
        raise ValueError(f'{lists} has no list for {missing}; it has: {found or "none"}')
    return {split: read_lines(lists / f'{split}.txt') for split in splits}


def _find_classes(root: Path) -> list[str]:
    """Every class named in any readable annotation, sorted."""
    classes: set[str] = set()
    for path in (root / 'Annotations').glob('*.xml'):
        try:
            classes |= class_names(read_xml(path))
        except UnusableImage:
            continue  # reported with the split that lists it
    return sorted(classes)


def _convert_split(
    root: Path,
    split: str,
    names: list[str],
    classes: Sequence[str],
    read_size: ReadSize,
    faults: list[Fault],
) -> dict[str, Any]:
    """COCO's dictionary for one split; what is wrong goes to `faults`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    bar = tqdm(Counter(names).items(), split, unit=' images', leave=False, disable=None)
    for name, count in bar:
        where = f'{split}/{name}'
        if count > 1:
            faults.append(Fault('image listed twice', where, f'{count} times; used once'))
        try:
            tree = read_xml(root / 'Annotations' / f'{name}.xml')
            path, width, height = _find_image(root, name, read_size)
            check_size(tree, (width, height), where, faults)
        except UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; image left out'))
            continue
        image_id = len(images) + 1
        images.append({'id': image_id, 'file_name': path, 'width': width, 'height': height})
        for found in read_objects(tree, (width, height), classes, where, faults):
            # COCO's evaluation takes an id of 0 for "no match".
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, **found})
    if not images:
        faults.append(Fault('split without images', split, 'its json has none'))
    return {
        'info': {'description': f'{root.resolve().name}, {split}, from Pascal VOC'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i, 'name': name} for i, name in enumerate(classes, 1)],
    }


def _find_image(root: Path, name: str, read_size: ReadSize) -> tuple[str, int, int]:
    """The image's file name in JPEGImages, and its width and height as OpenCV loads it."""
    folder = root / 'JPEGImages'
    paths = [folder / f'{name}{extension}' for extension in _EXTENSIONS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UnusableImage('missing image', f'no {paths[0]}, nor another image of this name')
    return path.relative_to(folder).as_posix(), *size_of(path, read_size)
