"""Label files of YOLO: a line `class x y width height` for each box, in parts of the image.

What Darknet and Ultralytics write; a polygon (`class x1 y1 x2 y2 x3 y3 ...`) gives its bounding
box. Where data.yaml has `kpt_shape`, keypoints follow the box.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .fault import Fault, UnusableImage
from .text_files import read_lines, read_text, visible_files

NAME_FILES = ('classes.txt', 'obj.names', '*.names', '_darknet.labels')

_EXPECTED = 'expected a class and 4 numbers, or 3 or more points, with blanks between'


def read_names(root: Path, faults: list[Fault]) -> list[str] | None:
    """The classes that a folder's data.yaml or a list of names has, in order; None if none has.

    Of several files, which must agree on each number, the one with the most. What cannot be read,
    such as a YAML file of something else, goes to `faults` if another file has the classes.

    Raises:
        ValueError: two files call a number differently, or none has names and one cannot be read.
    """
    readers = [(path, _names_in_yaml) for path in visible_files(root, '*.yaml', '*.yml')]
    readers += [
        (path, _names_in_lines) for name in NAME_FILES for path in visible_files(root, name)
    ]
    unread, found = [], {}
    for path, read in readers:
        try:
            names = read(path)
            if names is not None:
                found[path] = _in_order(names, path)
        except ValueError as error:
            unread.append(error)
    if not found and unread:
        raise unread[0]
    if not found:
        return None
    faults += [Fault('file not read', root.name, str(error)) for error in unread]
    longest = max(found, key=lambda path: len(found[path]))
    for path, names in found.items():
        for number, (one, other) in enumerate(zip(names, found[longest])):
            if one != other:
                raise ValueError(
                    f'class {number} is {one!r} in {path} and {other!r} in {longest}: labels that '
                    'count differently cannot be read as one data set'
                )
    return found[longest]


def _read_yaml(path: Path) -> dict[Any, Any]:
    """What a YAML file maps; nothing if it is no mapping."""
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
    return content if isinstance(content, dict) else {}


def read_yamls(root: Path) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """The YAML files of a folder, and what they map; what cannot be read `read_names` names."""
    for path in visible_files(root, '*.yaml', '*.yml'):
        try:
            yield path, _read_yaml(path)
        except (OSError, ValueError):
            continue


def _names_in_yaml(path: Path) -> Any:
    names = _read_yaml(path).get('names')
    if names is None:
        return None
    # as written: `yes` is a name, no truth value, and 010 no octal number
    return yaml.BaseLoader(read_text(path)).get_single_data().get('names', names)


def _names_in_lines(path: Path) -> list[str] | None:
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if '' in names:
        raise ValueError(
            f'{path}: line {names.index("") + 1} is blank, and lines number the classes: name it, '
            'or take it out if labels do not count it'
        )
    return names or None


def _in_order(names: Any, path: Path) -> list[str]:
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f'{path}: expected names as a list, or numbered from 0, got {names!r}')
    names = [str(name) for name in names]
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise ValueError(f'{path}: expected each class once, got {", ".join(again)} more than once')
    return names


def numbers_in_use(paths: Iterable[Path]) -> dict[int, Path]:
    """The numbers of classes that label files have, in order, each with the first file that has it.

    What cannot be read, or is no number, is for `read_labels` to name.
    """
    found: dict[int, Path] = {}
    for path in paths:
        try:
            lines = read_lines(path)
        except (OSError, ValueError):
            continue
        for line in lines:
            number = line.split()[0]
            if number.isascii() and number.isdigit():
                found.setdefault(int(number), path)
    return dict(sorted(found.items()))


def has_labels(path: Path) -> bool:
    """Whether the first line of a text file is numbers, as a box is and a list of names is not."""
    try:
        return len([float(word) for word in read_lines(path)[0].split()]) > 4
    except (OSError, ValueError, IndexError):
        return False


def read_labels(
    path: Path,
    size: tuple[int, int],
    num_classes: int,
    where: str,
    faults: list[Fault],
    keypoints: bool = False,
) -> list[dict[str, Any]]:
    """A label file's boxes as COCO's annotations, without ids; what is wrong goes to `faults`.

    Args:
        size: of the image, width and height in pixels.
        num_classes: class 0 becomes category 1; lines of classes beyond are left out.
        where: by which a fault calls the image.
        keypoints: the numbers beyond a line's first four are keypoints, not a polygon.

    Raises:
        UnusableImage: the file cannot be read.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise UnusableImage('broken labels', str(error)) from error
    objects = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        which = f'line {number} ({line.strip()[:60]})'

        def left_out(kind: str, which: str = which) -> None:
            faults.append(Fault(kind, where, f'{which}; left out'))

        words = line.replace(',', ' ').split()
        polygon = len(words) >= 7 and len(words) % 2 == 1
        if ',' in line or not (len(words) == 5 or polygon or (keypoints and len(words) > 5)):
            commas = ' with commas' * (',' in line)
            left_out('line of another form', f'{which}: {len(words)} values{commas}, {_EXPECTED}')
            continue
        try:
            label, *numbers = map(float, words)
        except ValueError:
            left_out('box not numeric')
            continue
        if keypoints:
            numbers = numbers[:4]
        if not all(map(math.isfinite, (label, *numbers))):
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
