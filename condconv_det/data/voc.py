"""Pascal VOC folders to COCO json, with every fault of the source named.

Coordinates follow detectron2's `pascal_voc.py`: VOC counts pixels from 1 and includes the last, so
xmin, ymin lose 1 and xmax, ymax stay, and (1, 1, width, height) is the whole image. (MMDetection's
converter takes 1 from all four, which makes every box a pixel too small.)

`difficult` follows MMDetection's converter: iscrowd 0 and "ignore" 1, so that MMDetection leaves
such a box out of training, while COCO's evaluation, which looks at iscrowd alone, counts it.
"""

import json
import math
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .fault import Fault
from .image_size import loaded_size

SPLITS = ('train', 'val', 'test')
_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.JPG', '.JPEG', '.PNG', '.BMP')
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


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
) -> Conversion:
    """Write `out/annotations/{split}.json` for a Pascal VOC folder, which is only read.

    File names in the json are relative to `root/JPEGImages`. Sizes are those of the image files.
    An object that cannot be used is left out, a box that crosses the border is clipped, an image
    that cannot be used is left out with its objects; each is in the result's `faults`. Existing
    files are replaced when all new ones are complete.

    Args:
        root: holds Annotations/*.xml, JPEGImages and, if there are splits, ImageSets/Main/*.txt.
        out: a folder outside `root`; made if need be.
        splits: by default those of train, val and test that ImageSets/Main has, or, where it has
            no list at all, one split 'all' of every annotation.
        classes: by default every name in any file of Annotations, sorted, whatever the splits.

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
        split: _convert_split(root, split, names[split], classes, faults) for split in names
    }
    if not any(data['annotations'] for data in converted.values()):
        kinds = ', '.join(f'{kind} {n}' for kind, n in Counter(f.kind for f in faults).items())
        first = f'; the first: {faults[0]}' if faults else ''
        raise ValueError(f'no box of {root} could be converted ({kinds or "no objects"}){first}')
    return Conversion(
        files=_write(out / 'annotations', converted),
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
    names = {}
    for split in splits:
        lines = (lists / f'{split}.txt').read_text(encoding='utf-8-sig').splitlines()
        names[split] = [line.strip() for line in lines if line.strip()]
    return names


def _find_classes(root: Path) -> list[str]:
    """Every class named in any readable annotation, sorted."""
    classes = set()
    for path in (root / 'Annotations').glob('*.xml'):
        try:
            tree = ET.parse(path).getroot()
        except (ET.ParseError, OSError, ValueError):
            continue  # reported with the split that lists it
        classes.update(_text(node, 'name') for node in tree.findall('object'))
    return sorted(classes - {''})


def _convert_split(
    root: Path, split: str, names: list[str], classes: Sequence[str], faults: list[Fault]
) -> dict[str, Any]:
    """COCO's dictionary for one split; what is wrong goes to `faults`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, count in Counter(names).items():
        where = f'{split}/{name}'
        if count > 1:
            faults.append(Fault('image listed twice', where, f'{count} times; used once'))
        try:
            tree = _read_xml(root, name)
            path, width, height = _find_image(root, name)
        except _UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; image left out'))
            continue
        said = tuple(_text(tree, f'size/{side}') for side in ('width', 'height'))
        if said != (str(width), str(height)):
            detail = f'xml says {said[0] or "?"}x{said[1] or "?"}, file has {width}x{height}'
            faults.append(Fault('image size differs', where, f'{detail}; used the file'))
        image_id = len(images) + 1
        images.append({'id': image_id, 'file_name': path, 'width': width, 'height': height})
        for number, node in enumerate(tree.findall('object'), 1):
            label = _text(node, 'name')
            which = f'object {number} ({label or "no name"})'
            if label not in classes:
                faults.append(Fault('unknown class', where, f'{which}; object left out'))
                continue
            box = _read_box(node, width, height, where, which, faults)
            if box is None:
                continue
            difficult = int(_text(node, 'difficult') == '1')
            annotations.append(
                {
                    # COCO's evaluation takes an id of 0 for "no match".
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': classes.index(label) + 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                    'ignore': difficult,
                    'difficult': difficult,
                    'segmentation': [],
                }
            )
    if not images:
        faults.append(Fault('split without images', split, 'its json has none'))
    return {
        'info': {'description': f'{root.resolve().name}, {split}, from Pascal VOC'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i, 'name': name} for i, name in enumerate(classes, 1)],
    }


class _UnusableImage(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _read_xml(root: Path, name: str) -> ET.Element:
    path = root / 'Annotations' / f'{name}.xml'
    if not path.is_file():
        raise _UnusableImage('missing xml', f'no {path}')
    try:
        return ET.parse(path).getroot()
    # ValueError: an encoding that the file declares but Python does not know.
    except (ET.ParseError, ValueError, OSError) as error:
        raise _UnusableImage('broken xml', f'{path}: {error}') from error


def _find_image(root: Path, name: str) -> tuple[str, int, int]:
    """The image's file name in JPEGImages, and its width and height as OpenCV loads it."""
    folder = root / 'JPEGImages'
    paths = [folder / f'{name}{extension}' for extension in _EXTENSIONS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise _UnusableImage('missing image', f'no {paths[0]}, nor another image of this name')
    try:
        width, height = loaded_size(path)
    except (OSError, ValueError) as error:
        raise _UnusableImage('broken image', f'{path}: {error}') from error
    return path.relative_to(folder).as_posix(), width, height


def _read_box(
    node: ET.Element, width: int, height: int, where: str, which: str, faults: list[Fault]
) -> list[float] | None:
    """An object's [x, y, width, height] in pixels, or None if it has no usable box."""
    texts = [_text(node, f'bndbox/{corner}') for corner in _CORNERS]
    said = f'{which} [{", ".join(text or "?" for text in texts)}]'

    def left_out(kind: str) -> None:
        faults.append(Fault(kind, where, f'{said}; object left out'))

    try:
        corners = [float(text) for text in texts]
    except ValueError:
        return left_out('box not numeric')
    if not all(map(math.isfinite, corners)):
        return left_out('box not numeric')
    xmin, ymin, xmax, ymax = corners
    if xmax < xmin or ymax < ymin:
        return left_out('box reversed')
    if xmax == xmin or ymax == ymin:
        return left_out('box without area')
    box = [xmin - 1, ymin - 1, xmax, ymax]
    clipped = [max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)]
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return left_out('box outside the image')
    if clipped != box:
        detail = f'{said} in an image of {width}x{height}; clipped'
        faults.append(Fault('box beyond the border', where, detail))
    return [clipped[0], clipped[1], clipped[2] - clipped[0], clipped[3] - clipped[1]]


def _text(node: ET.Element, path: str) -> str:
    return (node.findtext(path) or '').strip()


def _write(folder: Path, converted: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Write every split beside its place, then move all into place."""
    files = {split: folder / f'{split}.json' for split in converted}
    partial = {split: folder / f'.{split}.json.partial-{os.getpid()}' for split in converted}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for split, data in converted.items():
            partial[split].write_text(json.dumps(data))
        for split in converted:
            partial[split].replace(files[split])
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return files
