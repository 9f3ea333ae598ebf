"""COCO json to an ImageNet-style folder of crops, one for each box."""

import hashlib
import json
import math
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from .decode import decode
from .fault import Fault, UnusableImage
from .whole_files import folder_written_whole

# Beside the class folders of a split: what it was made from, and what was left out.
RECORD = 'crops.json'


class Crops(NamedTuple):
    """What `crop_objects` wrote, what it left out on purpose, and what it found wrong."""

    folder: Path
    crops: dict[str, int]  # by class
    left_out: dict[str, int]  # 'crowd', 'ignored' and 'too small', those that occur
    faults: list[Fault]


class _Coco(NamedTuple):
    classes: dict[Any, str]  # by category id
    images: dict[Any, dict[str, Any]]  # by image id
    objects: dict[Any, list[dict[str, Any]]]  # annotations by image id


def crop_objects(
    ann_file: Path | str,
    images: Path | str,
    out: Path | str,
    split: str | None = None,
    margin: float = 0.0,
    min_size: float = 0.0,
) -> Crops:
    """Write `out/{split}/{class}/{image}_{annotation id}.jpg` for each box of a COCO json.

    A crop has every pixel that its box touches, and the margin as far as the image goes. Each
    class has a folder, though it may be empty. Left out and counted are crowds, boxes that mmdet
    ignores in training, and small ones; a box or an image that cannot be used is left out and
    named in `faults`. The split's folder appears at once when all is written; found complete, it
    is left as it is.

    Args:
        ann_file: the json; its file names are relative to `images`.
        images: folder of the images, which are only read.
        out: made if need be.
        split: name of the folder in `out`; None is the json's own name.
        margin: added on each side, as a part of the box's width and height; at least 0.
        min_size: boxes with a shorter side, in pixels, are left out.

    Raises:
        ValueError: an argument or the json is unusable, or there is not one box to crop.
        FileExistsError: `out/{split}` holds anything but the same crops, complete.
        OSError: a file cannot be read or written.
    """
    ann_file, images, out = Path(ann_file), Path(images), Path(out)
    split = ann_file.stem if split is None else split
    for name, value in dict(margin=margin, min_size=min_size).items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f'{name} must be at least 0, found {value}')
    if not images.is_dir():
        raise ValueError(f'the image folder {images} does not exist')
    text = ann_file.read_bytes()
    parameters = {
        'sha256 of json': hashlib.sha256(text).hexdigest()[:16],
        'margin': float(margin),
        'min_size': float(min_size),
    }
    folder = out / split
    made = _already_made(folder, parameters)
    if made is not None:
        return made

    coco = _parse(text, ann_file)
    with folder_written_whole(folder) as partial:
        for name in coco.classes.values():
            (partial / name).mkdir()
        crops, left_out, faults = _crop_split(coco, images, split, partial, margin, min_size)
        if not any(crops.values()):
            kinds = Counter(fault.kind for fault in faults) + left_out
            reasons = ', '.join(f'{kind} {n}' for kind, n in kinds.items()) or 'no objects'
            first = f'; the first: {faults[0]}' if faults else ''
            raise ValueError(f'no box of {ann_file} could be cropped ({reasons}){first}')
        faults += [
            Fault('class without crops', split, f'{name}; its folder is empty')
            for name, count in crops.items()
            if not count
        ]
        record = {**parameters, 'crops': crops, 'left_out': left_out, 'faults': faults}
        (partial / RECORD).write_text(json.dumps(record))
    return Crops(folder, crops, dict(left_out), faults)


def _already_made(folder: Path, parameters: dict[str, Any]) -> Crops | None:
    """What `folder` holds if it is these very crops; None where they may be written."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    advice = 'name another folder, or remove this one'
    try:
        record = json.loads((folder / RECORD).read_text())
        found = {key: record[key] for key in parameters}
        made = Crops(
            folder,
            record['crops'],
            record['left_out'],
            [Fault(*fault) for fault in record['faults']],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'{folder} exists and is not a complete set of crops ({error!r}); {advice}'
        ) from error
    if found != parameters:
        raise FileExistsError(
            f'{folder} holds crops made with {found}, asked for {parameters}; {advice}'
        )
    for name, count in made.crops.items():
        present = len(list((folder / name).glob('*.jpg')))
        if present != count:
            raise FileExistsError(
                f'{folder / name} has {present} crops and should have {count}; {advice}'
            )
    return made


def _parse(text: bytes, ann_file: Path) -> _Coco:
    """The json's classes, images and annotations, with all keys that a crop needs."""
    try:
        data = json.loads(text)
        classes = {category['id']: str(category['name']) for category in data['categories']}
        images = {image['id']: image for image in data['images']}
        objects: dict[Any, list[dict[str, Any]]] = {}
        for annotation in data['annotations']:
            objects.setdefault(annotation['image_id'], []).append(annotation)
        for image in images.values():
            Path(image['file_name'])
        ids = Counter(annotation['id'] for annotation in data['annotations'])
        for annotation in data['annotations']:
            itemgetter('category_id', 'bbox')(annotation)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'annotation file {ann_file} is not COCO json: {type(error).__name__}: {error}'
        ) from error
    if not (classes and images):
        raise ValueError(
            f'annotation file {ann_file} has {len(classes)} categories and {len(images)} images; '
            'it needs at least one of each'
        )
    for what, counts in (('annotation id', ids), ('class', Counter(classes.values()))):
        repeated = [str(key) for key, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(f'{ann_file} has the same {what} more than once: {repeated[0]}')
    for name in classes.values():
        # mmpretrain does not see a folder whose name begins with a point
        if not name or name.startswith('.') or Path(name).name != name:
            raise ValueError(f'{ann_file}: class {name!r} cannot be the name of a folder')
    return _Coco(classes, images, objects)


def _crop_split(
    coco: _Coco, folder: Path, split: str, out: Path, margin: float, min_size: float
) -> tuple[dict[str, int], Counter[str], list[Fault]]:
    """Write a split's crops; return their number by class, what was left out, and the faults."""
    crops = dict.fromkeys(coco.classes.values(), 0)
    left_out: Counter[str] = Counter()
    faults: list[Fault] = []
    for image_id, objects in coco.objects.items():
        image = coco.images.get(image_id)
        if image is None:
            detail = f'the json has no image of id {image_id!r}; {len(objects)} objects left out'
            faults.append(Fault('unknown image', split, detail))
            continue
        name = Path(image['file_name'])
        where = f'{split}/{name.with_suffix("")}'
        try:
            picture = _read_image(folder / name, image)
        except UnusableImage as error:
            detail = f'{error}; {len(objects)} objects left out'
            faults.append(Fault(error.kind, where, detail))
            continue
        for annotation in objects:
            reason = _reason_to_leave_out(annotation)
            if reason:
                left_out[reason] += 1
                continue
            label = coco.classes.get(annotation['category_id'])
            what = f'annotation {annotation["id"]} ({label or "no class"}) {annotation["bbox"]}'
            try:
                box = _clip(annotation['bbox'], *picture.size)
                if label is None:
                    raise _UnusableBox('unknown class')
            except _UnusableBox as error:
                faults.append(Fault(str(error), where, f'{what}; object left out'))
                continue
            if min(box[2] - box[0], box[3] - box[1]) < min_size:
                left_out['too small'] += 1
                continue
            path = out / label / f'{name.stem}_{annotation["id"]}.jpg'
            picture.crop(_window(box, margin, *picture.size)).save(path, quality=95, subsampling=0)
            crops[label] += 1
    return crops, left_out, faults


class _UnusableBox(Exception):
    """Its message is the kind of fault."""


def _read_image(path: Path, entry: dict[str, Any]) -> Image.Image:
    """The whole image as MMDetection loads it, upright, but RGB."""
    try:
        picture = Image.fromarray(decode(path.read_bytes())[..., ::-1])
    except FileNotFoundError as error:
        raise UnusableImage('missing image', f'no {path}') from error
    except (OSError, ValueError) as error:
        raise UnusableImage('broken image', f'{path}: {error}') from error
    said = tuple(entry.get(key, side) for key, side in zip(('width', 'height'), picture.size))
    if said != picture.size:
        # its boxes are those of another picture
        sizes = f'json says {said[0]}x{said[1]}, file has {picture.width}x{picture.height}'
        raise UnusableImage('image size differs', sizes)
    return picture


def _reason_to_leave_out(annotation: dict[str, Any]) -> str | None:
    if annotation.get('iscrowd'):
        return 'crowd'
    return 'ignored' if annotation.get('ignore') else None


def _clip(box: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a COCO box [x, y, width, height] inside the image: left, top, right, bottom."""
    try:
        x, y, box_width, box_height = map(float, box)
    except (TypeError, ValueError):
        raise _UnusableBox('box not numeric') from None
    if not all(map(math.isfinite, (x, y, box_width, box_height))):
        raise _UnusableBox('box not numeric')
    if box_width <= 0 or box_height <= 0:
        raise _UnusableBox('box without area')
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + box_width, width), min(y + box_height, height)
    if left >= right or top >= bottom:
        raise _UnusableBox('box outside the image')
    return left, top, right, bottom


def _window(
    box: tuple[float, float, float, float], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """The pixels that a box and its margin touch, as far as the image goes."""
    left, top, right, bottom = box
    dx, dy = margin * (right - left), margin * (bottom - top)
    return (
        max(math.floor(left - dx), 0),
        max(math.floor(top - dy), 0),
        min(math.ceil(right + dx), width),
        min(math.ceil(bottom + dy), height),
    )
