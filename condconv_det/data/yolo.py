"""Label files of YOLO: a line `class x y width height` for each box, in parts of the image.

What Darknet and Ultralytics write; a polygon (`class x1 y1 x2 y2 x3 y3 ...`) gives its bounding
box.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .fault import Fault

NAME_FILES = ('classes.txt', 'obj.names', '*.names', '_darknet.labels')


def read_names(root: Path) -> list[str] | None:
    """The classes that a folder's data.yaml or a list of names has, in order; None if none has.

    Raises:
        ValueError: a file with names makes no sense.
    """
    for path in sorted([*root.rglob('*.yaml'), *root.rglob('*.yml')]):
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
        names = content.get('names') if isinstance(content, dict) else None
        if names is None:
            continue
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list) or not names:
            raise ValueError(f'{path}: expected names as a list, or numbered from 0, got {names!r}')
        return [str(name) for name in names]
    for pattern in NAME_FILES:
        for path in sorted(root.rglob(pattern)):
            lines = path.read_text(encoding='utf-8-sig').splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if names:
                return names
    return None


def read_labels(
    path: Path, size: tuple[int, int], num_classes: int, where: str, faults: list[Fault]
) -> list[dict[str, Any]]:
    """A label file's boxes as COCO's annotations, without ids; what is wrong goes to `faults`.

    Args:
        size: of the image, width and height in pixels.
        num_classes: class 0 becomes category 1; lines of classes beyond are left out.
        where: by which a fault calls the image.
    """
    objects = []
    for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), 1):
        if not line.strip():
            continue
        which = f'line {number} ({line.strip()[:60]})'

        def left_out(kind: str, which: str = which) -> None:
            faults.append(Fault(kind, where, f'{which}; left out'))

        try:
            label, *numbers = map(float, line.split())
        except ValueError:
            left_out('box not numeric')
            continue
        polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
        if not all(map(math.isfinite, (label, *numbers))) or not (polygon or len(numbers) == 4):
            left_out('box not numeric')
            continue
        if label not in range(num_classes):
            left_out('unknown class')
            continue
        box = _to_pixels(_corners(numbers), size)
        if box[0] >= box[2] or box[1] >= box[3]:
            left_out('box without area')
            continue
        width, height = size
        left, top = max(box[0], 0.0), max(box[1], 0.0)
        right, bottom = min(box[2], width), min(box[3], height)
        if left >= right or top >= bottom:
            left_out('box outside the image')
            continue
        if max(left - box[0], top - box[1], box[2] - right, box[3] - bottom) > 1:
            faults.append(Fault('box beyond the border', where, f'{which}; clipped'))
        objects.append(
            {
                'category_id': int(label) + 1,
                'bbox': [left, top, right - left, bottom - top],
                'area': (right - left) * (bottom - top),
                'iscrowd': 0,
                'segmentation': [],
            }
        )
    return objects


def _corners(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in parts of the image, of a box or a polygon."""
    if len(numbers) > 4:
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    x, y, width, height = numbers
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _to_pixels(
    corners: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    width, height = size
    left, top, right, bottom = corners
    return left * width, top * height, right * width, bottom * height
