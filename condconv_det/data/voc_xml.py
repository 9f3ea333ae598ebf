"""One annotation file of Pascal VOC.

Coordinates follow detectron2's `pascal_voc.py`: VOC counts pixels from 1 and includes the last, so
xmin, ymin lose 1 and xmax, ymax stay, (1, 1, width, height) is the whole image, and an object of
one column has xmin equal to xmax. (MMDetection's converter takes 1 from all four, which makes every
box a pixel too small.)

`difficult` follows MMDetection's converter: iscrowd 0 and "ignore" 1, so that MMDetection leaves
such a box out of training, while COCO's evaluation, which looks at iscrowd alone, counts it.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .fault import Fault, UnusableImage

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_xml(path: Path) -> ET.Element:
    """The root of an annotation file.

    Raises:
        UnusableImage: it is missing or broken.
    """
    if not path.is_file():
        raise UnusableImage('missing xml', f'no {path}')
    try:
        return ET.parse(path).getroot()
    # ValueError: an encoding that the file declares but Python does not know.
    except (ET.ParseError, ValueError, OSError) as error:
        raise UnusableImage('broken xml', f'{path}: {error}') from error


def class_names(tree: ET.Element) -> set[str]:
    """The classes that an annotation names."""
    return {text_of(node, 'name') for node in tree.findall('object')} - {''}


def check_size(tree: ET.Element, size: tuple[int, int], where: str, faults: list[Fault]) -> None:
    """Compares an annotation's size with the image file's; it may have none, or 0x0.

    Boxes drawn in a picture of another size, or in a photograph before it was turned upright, lie
    elsewhere in the file's.

    Args:
        size: the image file's width and height.
        where: by which a fault, of a missing size, calls the image.

    Raises:
        UnusableImage: the annotation is of another size.
    """
    said = [text_of(tree, f'size/{side}') for side in ('width', 'height')]
    detail = f'xml says {said[0] or "?"}x{said[1] or "?"}, file has {size[0]}x{size[1]}'
    try:
        sides = [float(text or 0) for text in said]
    except ValueError:
        sides = said
    if sides == [0, 0]:
        faults.append(Fault('image size missing', where, f'{detail}; used the file'))
    elif sides != list(size):
        raise UnusableImage('image size differs', detail)


def read_objects(
    tree: ET.Element,
    size: tuple[int, int],
    classes: Sequence[str],
    where: str,
    faults: list[Fault],
) -> list[dict[str, Any]]:
    """An annotation's objects as COCO's, without ids; what is wrong goes to `faults`.

    Args:
        tree: as `read_xml` returns it.
        size: the image file's width and height, which boxes are clipped to.
        classes: in the order of their ids, from 1; objects of others are left out.
        where: by which a fault calls the image.
    """
    objects = []
    for number, node in enumerate(tree.findall('object'), 1):
        label = text_of(node, 'name')
        which = f'object {number} ({label or "no name"})'
        if label not in classes:
            faults.append(Fault('unknown class', where, f'{which}; object left out'))
            continue
        box = _read_box(node, *size, where, which, faults)
        if box is None:
            continue
        difficult = int(text_of(node, 'difficult') == '1')
        objects.append(
            {
                'category_id': classes.index(label) + 1,
                'bbox': box,
                'area': box[2] * box[3],
                'iscrowd': 0,
                'ignore': difficult,
                'difficult': difficult,
                'segmentation': [],
            }
        )
    return objects


def _read_box(
    node: ET.Element, width: int, height: int, where: str, which: str, faults: list[Fault]
) -> list[float] | None:
    """An object's [x, y, width, height] in pixels, or None if it has no usable box."""
    texts = [text_of(node, f'bndbox/{corner}') for corner in _CORNERS]
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
    box = [xmin - 1, ymin - 1, xmax, ymax]
    clipped = [max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)]
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return left_out('box outside the image')
    if clipped != box:
        detail = f'{said} in an image of {width}x{height}; clipped'
        faults.append(Fault('box beyond the border', where, detail))
    return [clipped[0], clipped[1], clipped[2] - clipped[0], clipped[3] - clipped[1]]


def text_of(node: ET.Element, path: str) -> str:
    """The text at a path below a node, '' if there is none."""
    return (node.findtext(path) or '').strip()
