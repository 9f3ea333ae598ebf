"""Boxes of another form than COCO's [x, y, width, height] in pixels, told by all of a file."""

import math
import re
from typing import Any

from pycocotools import mask

LIMIT = 1e15  # for ids and coordinates: a float still holds every integer below
_FEW = 3  # fewer boxes tell no form
_NEARLY_ALL = 0.95
# five bits a letter, below P where a number ends; beyond another end pycocotools reads on
_RLE_TEXT = re.compile('([P-o]{0,6}[0-O])*')
_ROUNDING = 0.01  # parts of an image by which a box may cross its border

Entry = dict[str, Any]


def is_number(value: Any) -> bool:
    """Also false for NaN, infinities and what is too large to calculate with."""
    return type(value) in (int, float) and -LIMIT < value < LIMIT


def is_box(value: Any) -> bool:
    """Whether it is four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def box_around(segmentation: Any) -> list[float] | None:
    """The bounding box of polygons or of an RLE mask; None where it is neither."""
    if isinstance(segmentation, dict):
        return _box_around_mask(segmentation)
    if not (isinstance(segmentation, list) and segmentation):
        return None
    for polygon in segmentation:
        if not (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0):
            return None
        if not all(map(is_number, polygon)):
            return None
    across = [x for polygon in segmentation for x in polygon[::2]]
    down = [y for polygon in segmentation for y in polygon[1::2]]
    left, top = min(across), min(down)
    return [left, top, max(across) - left, max(down) - top]


def _box_around_mask(rle: Entry) -> list[float] | None:
    # pycocotools checks nothing, and crashes
    size, counts = rle.get('size'), rle.get('counts')
    if not (isinstance(size, list) and len(size) == 2 and all(_is_count(side, 1) for side in size)):
        return None
    if isinstance(counts, list):
        if not (all(map(_is_count, counts)) and 0 < sum(counts) <= math.prod(size)):
            return None
        rle = mask.frPyObjects(rle, *size)
    elif not (isinstance(counts, str) and _RLE_TEXT.fullmatch(counts)):
        return None
    return mask.toBbox(rle).tolist()


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**29  # what six letters hold


def are_parts(boxes: list[list[float]]) -> bool:
    """Whether all of a file's boxes, if there are several, lie within 0 and 1."""
    return len(boxes) >= _FEW and all(
        -_ROUNDING <= min(box) and max(box) <= 1 + _ROUNDING for box in boxes
    )


def count_beyond_one(boxes: list[list[float]]) -> int:
    """Boxes in parts of the image that cross its border, as corners and centres do."""
    return sum(max(x + width, y + height) > 1 + _ROUNDING for x, y, width, height in boxes)


def are_corners(boxes: list[list[float]]) -> bool:
    """Whether nearly all of a file's boxes, if there are several, may be corners x1 y1 x2 y2."""
    ordered = sum(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes)
    return len(boxes) >= _FEW and ordered >= _NEARLY_ALL * len(boxes)


def in_pixels(annotation: Entry, image: Entry) -> Entry:
    """An annotation whose box, and area if it has one, were in parts of the image."""
    width, height = image['width'], image['height']
    scaled = {}
    box = annotation.get('bbox') or box_around(annotation.get('segmentation'))
    if is_box(box):
        sides = width, height, width, height
        scaled['bbox'] = [number * side for number, side in zip(box, sides)]
    area = annotation.get('area')
    if is_number(area) and area <= 1:  # a larger one is in pixels
        scaled['area'] = area * width * height
    return {**annotation, **scaled}
