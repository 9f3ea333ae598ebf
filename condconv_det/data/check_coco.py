"""Checks COCO json for what MMDetection and pycocotools do not catch, or catch late and unnamed."""

import gc
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from .box_forms import (
    are_corners,
    are_parts,
    box_around,
    count_beyond_one,
    in_pixels,
    is_box,
    is_number,
)
from .coco_faults import KINDS, LEFT_OUT, NUMBERED_ANEW, level
from .fault import Fault

_LONGEST = 1e6  # side of an image
_ROUNDING = 1.0  # pixels by which a box may cross the border; COCO's own do
_BEYOND = 'box beyond the border', 'box outside the image'
_AREA_TOLERANCE = 0.02

Entry = dict[str, Any]


class Check(NamedTuple):
    """What `check_coco` found."""

    faults: list[Fault]
    mended: dict[str, Any] | None  # None where a fault is left to a person


def read_coco(path: Path | str, encoding: str = 'utf-8') -> Any:
    """What a json file holds, read as pycocotools reads it.

    Args:
        encoding: 'utf-8-sig' passes over a byte-order mark, with which pycocotools fails.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not json.
    """
    collects = gc.isenabled()
    gc.disable()  # which halves the time that COCO's takes
    try:
        return json.loads(Path(path).read_text(encoding=encoding))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not json: {type(error).__name__}: {error}') from error
    finally:
        if collects:
            gc.enable()


def check_coco(
    data: Any,
    evaluated: bool = True,
    classes: Sequence[str] | None = None,
    unusable: Collection[Any] = (),
) -> Check:
    """Finds the faults of a COCO data set of boxes, and mends those that can be.

    Args:
        data: as `read_coco` returns it; not changed.
        evaluated: whether the set is also validated or tested on, which takes more than training.
        classes: those that the config names, in its order, if known.
        unusable: ids of images that the mended data leave out with their boxes.
    """
    if not isinstance(data, dict):
        return _only_fault(f'expected an object, found {_short(data)}')
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(data.get(key), list) or (not data[key] and key != 'annotations'):
            return _only_fault(f'expected a list of {key}, found {_short(data.get(key))}')
    faults: list[Fault] = []
    categories = _check_categories(data['categories'], data['annotations'], classes, faults)
    images, left_out = _check_images(data['images'], faults)
    found: list[Fault] = []
    annotations = _check_annotations(data['annotations'], images, left_out, categories, found)
    form = _check_form(data['annotations'], annotations, found)
    if form is not None:
        faults.insert(0, form)  # it explains others
        if KINDS[form.kind].mend:
            found = []
            annotations = _check_annotations(
                data['annotations'], images, left_out, categories, found, in_parts=True
            )
    faults += found
    _note_what_is_empty(annotations, images, categories, faults)
    kept = {key: image for key, image in images.items() if key not in unusable}
    if not kept:
        faults.append(Fault('no usable image', 'images', f'none of {len(data["images"])}'))
    for fault in faults:
        if level(fault, evaluated) == 'error' and not KINDS[fault.kind].mend:
            return Check(faults, None)
    mended = {
        **data,
        'categories': [entry for entry in data['categories'] if entry['id'] in categories],
        'images': list(kept.values()),
        'annotations': [a for a in annotations if a['image_id'] in kept],
    }
    return Check(faults, mended)


def _only_fault(detail: str) -> Check:
    return Check([Fault('not COCO json', 'file', detail)], None)


def _check_categories(
    entries: list[Any],
    annotations: list[Any],
    classes: Sequence[str] | None,
    faults: list[Fault],
) -> dict[Any, str]:
    """Names by id, of the categories that remain."""
    names: dict[Any, str] = {}
    for index, entry in enumerate(entries):
        problem = _problem(entry, dict(id=_ID, name=_TEXT))
        if problem:
            faults.append(Fault('category incomplete', f'category entry {index}', problem))
            continue
        where = f'category {_short(entry["id"])}'
        if entry['id'] in names:
            detail = f'{_short(names[entry["id"]])} and {_short(entry["name"])}'
            faults.append(Fault('category listed twice', where, detail))
        names.setdefault(entry['id'], entry['name'])
    for name, times in Counter(names.values()).items():
        if times > 1:
            _check_same_name(name, names, annotations, faults)
    order = [name for name in names.values() if classes is not None and name in classes]
    if order != [name for name in classes or () if name in order]:
        detail = f'metainfo has {_short(list(classes))}, but must follow the file: {_short(order)}'
        faults.append(Fault('classes in another order', 'categories', detail))
    ids = [key for key in names if isinstance(key, int)]
    if ids and len(ids) == len(names) and max(ids) - min(ids) >= len(ids):
        detail = f'{len(ids)} ids from {min(ids)} to {max(ids)}'
        faults.append(Fault('category ids with holes', 'categories', detail))
    return names


def _check_same_name(
    name: str, names: dict[Any, str], annotations: list[Any], faults: list[Fault]
) -> None:
    """Takes out of `names` the categories of one name that have no boxes, but for one."""
    keys = [key for key, other in names.items() if other == name]
    used = [entry.get('category_id') for entry in annotations if isinstance(entry, dict)]
    boxed = [key for key in keys if key in used]
    kept = (boxed or keys)[0]
    for key in keys:
        where = f'category {_short(key)}'
        detail = f'{_short(name)} is also category {_short(kept)}'
        if key in boxed[1:]:
            detail += '; both have boxes: give these one category_id, or the categories two names'
            faults.append(Fault('category listed twice', where, detail))
        elif key != kept:
            faults.append(Fault('empty category of the same name', where, detail))
            del names[key]


def _check_images(entries: list[Any], faults: list[Fault]) -> tuple[dict[Any, Entry], set[Any]]:
    """Usable entries by id, and the ids of others."""
    images: dict[Any, Entry] = {}
    left_out = set()
    files: dict[str, Any] = {}
    keys = dict(id=_ID, file_name=_TEXT, width=_SIDE, height=_SIDE)
    for index, entry in enumerate(entries):
        problem = _problem(entry, keys)
        if problem:
            faults.append(Fault('image incomplete', f'image entry {index}', problem))
            if isinstance(entry, dict) and _is_id(entry.get('id')):
                left_out.add(entry['id'])
            continue
        image_id, name = entry['id'], entry['file_name']
        first = images.get(image_id)
        if first is not None:
            detail = f'{_short(first["file_name"])} and {_short(name)}'
            faults.append(Fault('image listed twice', f'image {_short(image_id)}', detail))
            if first != entry:
                left_out.add(image_id)
            continue
        if name in files:
            detail = f'{_short(name)} is also image {_short(files[name])}'
            faults.append(Fault('file listed twice', f'image {_short(image_id)}', detail))
        files.setdefault(name, image_id)
        images[image_id] = entry
    return {key: image for key, image in images.items() if key not in left_out}, left_out


def _check_form(entries: list[Any], kept: list[Entry], found: list[Fault]) -> Fault | None:
    """What is wrong with all boxes alike.

    Args:
        entries: all annotations.
        kept: those that remain.
        found: the faults of all.
    """
    boxes = [entry['bbox'] for entry in kept]
    if are_parts(boxes):
        detail = f'all {len(boxes)} lie within 0 and 1'
        beyond = count_beyond_one(boxes)
        if beyond:
            detail += f', and {beyond} reach beyond 1 as x y width height: corners or centres?'
            return Fault('boxes of another form', 'annotations', detail)
        detail += ', taken as x y width height in parts of the image'
        return Fault('boxes in parts of the image', 'annotations', detail)
    beyond = sum(fault.kind in _BEYOND for fault in found)
    if beyond * 2 <= len(entries):
        return None
    said = [entry.get('bbox') for entry in entries if isinstance(entry, dict)]
    boxes = [box for box in said if is_box(box)]
    if not are_corners(boxes):
        return None
    detail = (
        f'{beyond} of {len(boxes)} reach beyond their image as x y width height, and nearly '
        'all are boxes as corners x1 y1 x2 y2: write [x1, y1, x2 - x1, y2 - y1]'
    )
    return Fault('boxes of another form', 'annotations', detail)


def _check_annotations(
    entries: list[Any],
    images: dict[Any, Entry],
    left_out: set[Any],
    categories: dict[Any, str],
    faults: list[Fault],
    in_parts: bool = False,
) -> list[Entry]:
    """The annotations that remain, mended; boxes may be in parts of the image."""
    kept = []
    unnumbered = []  # positions in kept
    seen: set[Any] = set()
    by_text = {
        'image': {str(key): key for key in (*images, *left_out)},
        'category': {str(key): key for key in categories},
    }
    for index, entry in enumerate(entries):
        try:
            no_image = entry['image_id'] not in images and entry['image_id'] not in left_out
            no_category = entry['category_id'] not in categories
        except (KeyError, TypeError, IndexError):
            detail = f'expected an image_id and a category_id, found {_short(entry)}'
            faults.append(Fault('annotation incomplete', f'annotation entry {index}', detail))
            continue
        retyped = []
        for thing, missing in (('image', no_image), ('category', no_category)):
            said = entry[f'{thing}_id']
            same = by_text[thing].get(str(said)) if missing and _is_id(said) else None
            if same is not None:
                entry = {**entry, f'{thing}_id': same}
                detail = f'{thing}_id {_short(said)}, but the {thing} has {_short(same)}'
                retyped.append((f'{thing} id of another type', detail))
        image = images.get(entry['image_id'])
        if in_parts and image is not None:
            entry = in_pixels(entry, image)
        found, mended = _check_annotation(entry, image)
        found += _check_id(entry, seen)
        found += retyped
        if image is None and entry['image_id'] not in left_out:
            found.append(('unknown image', f'image_id {_short(entry["image_id"])}'))
        if entry['category_id'] not in categories:
            found.append(('unknown category', f'category_id {_short(entry["category_id"])}'))
        mends = {KINDS[kind].mend for kind, _ in found}
        if found:
            where = _place(entry, index, image)
            faults += [Fault(kind, where, detail) for kind, detail in found]
        if image is None or LEFT_OUT in mends:
            continue
        if NUMBERED_ANEW in mends:
            unnumbered.append(len(kept))
        kept.append(mended)
    free = (number for number in count(1) if number not in seen)
    for position, number in zip(unnumbered, free):
        kept[position] = {**kept[position], 'id': number}
    return kept


def _check_id(entry: Entry, seen: set[Any]) -> list[tuple[str, str]]:
    """Kind and detail of what is wrong with an annotation's id, if anything; adds it to `seen`."""
    number = entry.get('id')
    if 'id' not in entry or isinstance(number, list | dict):
        return [('annotation without id', f'id {_short(number)}, expected a number')]
    if number in seen:
        return [('annotation id twice', 'an earlier one has it')]
    seen.add(number)
    if not is_number(number) or not number:
        return [('annotation id unusable', 'expected a number other than 0')]
    return []


def _check_annotation(entry: Entry, image: Entry | None) -> tuple[list[tuple[str, str]], Entry]:
    """Kinds and details of what is wrong with box, area and iscrowd; the annotation mended."""
    said = entry.get('bbox')
    box = said or box_around(entry.get('segmentation'))
    if not is_box(box):
        return [('box not numeric', f'bbox {_short(said)}, expected 4 finite numbers')], entry
    found, box = _check_box(box, image)
    if not said:
        found.append(('box missing', f'bbox {_short(said)}, taken around its mask'))
    changes: Entry = {} if box is said else {'bbox': box}
    box_area = box[2] * box[3]

    area = entry.get('area')
    if not is_number(area):
        found.append(('area missing', f'area {_short(area)}, expected a number'))
        changes['area'] = box_area
    elif area <= 0:
        found.append(('area not positive', f'area {area}, bbox {box}'))
        changes['area'] = box_area
    elif changes:
        changes['area'] = min(area, box_area)
    # a mask has an area of its own
    elif not entry.get('segmentation') and abs(area - box_area) > 1 + _AREA_TOLERANCE * box_area:
        found.append(('area differs', f'area {area}, bbox {box}'))
        changes['area'] = box_area

    crowd = entry.get('iscrowd')
    if crowd is None:
        found.append(('iscrowd missing', 'expected 0 or 1'))
        changes['iscrowd'] = 0
    elif crowd not in (0, 1):
        found.append(('iscrowd not 0 or 1', f'iscrowd {_short(crowd)}'))
        changes['iscrowd'] = int(crowd == '1')
    return found, {**entry, **changes} if changes else entry


def _check_box(box: list[float], image: Entry | None) -> tuple[list[tuple[str, str]], list[float]]:
    """Kinds and details of what is wrong with a box of four numbers; the box, or it clipped."""
    x, y, width, height = box
    if width < 0 or height < 0:
        return [('box with negative sides', f'bbox {box}')], box
    if width == 0 or height == 0:
        return [('box without area', f'bbox {box}')], box
    if width < 1 or height < 1:
        return [('box under a pixel', f'bbox {box}')], box
    if image is None:
        return [], box
    beyond = max(-x, -y, x + width - image['width'], y + height - image['height'])
    if beyond <= 0:
        return [], box
    detail = f'bbox {box} in an image of {image["width"]}x{image["height"]}'
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image['width']), min(y + height, image['height'])
    if left >= right or top >= bottom:
        return [('box outside the image', detail)], box
    if beyond <= _ROUNDING:
        return [], box
    return [('box beyond the border', detail)], [left, top, right - left, bottom - top]


def _note_what_is_empty(
    annotations: list[Entry],
    images: dict[Any, Entry],
    categories: dict[Any, str],
    faults: list[Fault],
) -> None:
    used = {annotation['image_id'] for annotation in annotations}
    for image_id, image in images.items():
        if image_id not in used:
            where = f'image {_short(image_id)}'
            faults.append(Fault('image without boxes', where, _short(image['file_name'])))
    boxes = Counter(annotation['category_id'] for annotation in annotations)
    for category, name in categories.items():
        if not boxes[category]:
            where = f'category {_short(category)}'
            faults.append(Fault('category without boxes', where, _short(name)))


def _place(entry: Entry, index: int, image: Entry | None) -> str:
    name = f'annotation {_short(entry["id"])}' if 'id' in entry else f'annotation entry {index}'
    return name if image is None else f'{name} of {_short(image["file_name"])}'


def _short(value: Any) -> str:
    """As json, in ASCII, cut to a line."""
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of thousands of digits
        text = type(value).__name__
    return text if len(text) <= 80 else f'{text[:77]}...'


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (is_number(value) and value == int(value))


def _problem(entry: Any, keys: dict[str, tuple[Callable[[Any], bool], str]]) -> str | None:
    """What an entry lacks of the keys that it needs."""
    if not isinstance(entry, dict):
        return f'expected an object, found {_short(entry)}'
    for key, (is_right, expected) in keys.items():
        if not is_right(entry.get(key)):
            return f'{key} {_short(entry.get(key))}, expected {expected}'
    return None


_ID = _is_id, 'a whole number or a text'
_TEXT = (lambda value: isinstance(value, str) and value != ''), 'a text'
_SIDE = (lambda value: is_number(value) and 1 <= value <= _LONGEST), 'a number of pixels'
