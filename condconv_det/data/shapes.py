"""An embedded detection data set in COCO's format: five shapes in six visual domains.

Every class appears in every domain, as the same shape in other colours and textures (see
domains.py), so that a detector needs the same answer from very different pixels.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from .domains import PAINTERS
from .whole_files import folder_written_whole

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')
DOMAINS = tuple(PAINTERS)
SPLITS = {'train': 1000, 'val': 150, 'test': 150}

MIN_SIZE = 64
# An object's diameter over the image's side.
DIAMETERS = (0.24, 0.4)
OBJECTS = (3, 8)
# Of an object's whole area, the part that the border and later objects must leave in sight.
MIN_VISIBLE = 0.5
# Masks are drawn this many times larger: antialiased objects, boxes to half a pixel.
SUPERSAMPLING = 2
# Raised whenever the same arguments give other pictures, so that an old folder is not reused.
REVISION = 1


class _Object(NamedTuple):
    category: int  # index into CLASSES
    mask: ndarray  # uint8 [S*H, S*W], 0 or 255, S = SUPERSAMPLING; the part inside the image
    area: float  # of the whole object, border or not, in pixels of the mask


def make_shapes(
    root: Path | str,
    splits: Mapping[str, int] = SPLITS,
    size: int = 128,
    seed: int = 0,
    domains: Sequence[str] = DOMAINS,
) -> dict[str, Path]:
    """Write the data set under `root`, or find it there already, and return each split's json.

    The layout is `root/{split}/000000.jpg` and `root/annotations/{split}.json`. A picture depends
    on its split's name, its index, its domain, the size and the seed only. Boxes, areas and
    polygons are those of the visible part, as in COCO (a polygon cannot show a hole, the area
    leaves it out), and each image has an extra key "domain". The folder appears at once when all is
    written.

    Args:
        root: a folder that does not exist, is empty, or was made with the same arguments.
        splits: number of images, at least 1, by name of the split.
        size: height and width of the images in pixels, at least 64.
        seed: not negative.
        domains: the looks that the images have in turns, of `DOMAINS`.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: `root` holds anything else, or only a part of this data set.
    """
    root = Path(root)
    _check_arguments(splits, size, seed, domains)
    parameters = {'revision': REVISION, 'size': size, 'seed': seed, 'splits': dict(splits)}
    if tuple(domains) != DOMAINS:
        parameters['domains'] = list(domains)
    annotation_files = {split: root / 'annotations' / f'{split}.json' for split in splits}
    if _already_made(root, parameters):
        return annotation_files

    try:
        with folder_written_whole(root) as partial:
            (partial / 'annotations').mkdir()
            for split, count in splits.items():
                data = _make_split(partial / split, split, count, size, seed, domains)
                data['info']['parameters'] = parameters
                text = json.dumps(data, sort_keys=True)
                (partial / 'annotations' / f'{split}.json').write_text(text)
    except OSError:
        # Another process may have finished the same data set in the meantime.
        if not _already_made(root, parameters):
            raise
    return annotation_files


def _check_arguments(
    splits: Mapping[str, int], size: int, seed: int, domains: Sequence[str]
) -> None:
    if not splits:
        raise ValueError('splits must name at least one split, found none')
    for split, count in splits.items():
        if not split.isidentifier() or split == 'annotations':
            raise ValueError(f"a split's name must be a plain word, found {split!r}")
        if not isinstance(count, int) or count < 1:
            raise ValueError(f'split {split!r} needs an image count of at least 1, found {count!r}')
    if not isinstance(size, int) or size < MIN_SIZE:
        raise ValueError(f'size must be an integer of at least {MIN_SIZE} pixels, found {size!r}')
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'seed must be an integer of at least 0, found {seed!r}')
    if not domains or len(set(domains)) < len(domains) or not set(domains) <= set(DOMAINS):
        raise ValueError(f'domains must be some of {DOMAINS}, each once, found {domains!r}')


def _already_made(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether `root` holds this very data set; False where it may be written."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise FileExistsError(f'{root} must be a folder, found a file')
    if not any(root.iterdir()):
        return False
    for split in parameters['splits']:
        path = root / 'annotations' / f'{split}.json'
        try:
            data = json.loads(path.read_text())
            found, names = data['info']['parameters'], [i['file_name'] for i in data['images']]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileExistsError(
                f'{root} exists and is not a complete shapes data set ({path}: {error!r}); '
                'name another folder, or remove this one'
            ) from error
        if found != parameters:
            raise FileExistsError(
                f'{root} holds a shapes data set made with {found}, asked for {parameters}; '
                'name another folder, or remove this one'
            )
        missing = [name for name in names if not (root / split / name).is_file()]
        if missing:
            raise FileExistsError(
                f'{root} lacks {len(missing)} of the {len(names)} images of {split!r}, the first '
                f'is {missing[0]}; name another folder, or remove this one'
            )
    return True


def _make_split(
    folder: Path, split: str, count: int, size: int, seed: int, domains: Sequence[str]
) -> dict[str, Any]:
    """Write the images of a split into `folder` and return its COCO annotations."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, index, *split.encode()])
        # Classes and domains take turns: five and six have no common divisor, so that thirty
        # images in a row have each class at least once in each domain.
        domain = domains[index % len(domains)]
        objects = _place_objects(rng, size, first_category=index % len(CLASSES))
        name = f'{index:06d}.jpg'
        _, encoded = cv2.imencode(
            '.jpg', _paint(rng, size, domain, objects), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        (folder / name).write_bytes(encoded.tobytes())
        images.append(
            {'id': index, 'file_name': name, 'height': size, 'width': size, 'domain': domain}
        )
        for annotation in _annotate(objects):
            annotations.append({'id': len(annotations) + 1, 'image_id': index, **annotation})
    return {
        'info': {'description': 'condconv_det shapes'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)],
    }


def _place_objects(rng: Generator, size: int, first_category: int) -> list[_Object]:
    """Draw lots for the objects of an image, in drawing order, each visible enough at the end."""
    objects: list[_Object] = []
    visible: list[ndarray] = []
    wanted = rng.integers(OBJECTS[0], OBJECTS[1] + 1)
    attempts = 0
    # A crowded image may end with fewer objects than wanted, but never with less than the minimum.
    while len(objects) < wanted and (attempts < 10 * wanted or len(objects) < OBJECTS[0]):
        attempts += 1
        category = int(rng.integers(len(CLASSES))) if objects else first_category
        candidate = _draw_object(rng, size, category)
        if cv2.countNonZero(candidate.mask) < MIN_VISIBLE * candidate.area:
            continue
        rest = [cv2.subtract(mask, candidate.mask) for mask in visible]
        if all(
            cv2.countNonZero(mask) >= MIN_VISIBLE * earlier.area
            for mask, earlier in zip(rest, objects, strict=True)
        ):
            objects.append(candidate)
            visible = [*rest, candidate.mask]
    return objects


def _draw_object(rng: Generator, size: int, category: int) -> _Object:
    """One object of a random diameter, rotation and place, which may lie beyond the border."""
    radius = 0.5 * size * np.exp(rng.uniform(*np.log(DIAMETERS)))
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = radius * _outline(CLASSES[category]) @ rotation + rng.uniform(0, size, 2)
    # OpenCV counts from the first pixel's centre, not from its edge; with four binary places.
    points = np.rint((SUPERSAMPLING * corners - 0.5) * 16).astype(np.int32)
    mask = np.zeros((SUPERSAMPLING * size, SUPERSAMPLING * size), np.uint8)
    cv2.fillPoly(mask, [points], 255, shift=4)
    return _Object(category, mask, cv2.contourArea(np.float32(SUPERSAMPLING * corners)))


def _outline(name: str) -> ndarray:
    """A class's corners, float64 [K, 2], within the unit circle."""

    def ring(corners: int, radius: float = 1.0, turn: float = 0.0) -> ndarray:
        angle = 2 * np.pi * (np.arange(corners) / corners + turn)
        return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    if name == 'star':
        return np.stack([ring(5), ring(5, 0.42, 0.1)], axis=1).reshape(-1, 2)
    if name == 'cross':
        arm = np.array([[0.95, -0.3], [0.95, 0.3], [0.3, 0.3]])
        quarter_turn = np.array([[0, 1], [-1, 0]])
        return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, k) for k in range(4)])
    return ring({'circle': 64, 'square': 4, 'triangle': 3}[name])


def _paint(rng: Generator, size: int, domain: str, objects: list[_Object]) -> ndarray:
    """The image of these objects, uint8 BGR [H, W, 3]."""
    fills = [cv2.resize(o.mask, (size, size), interpolation=cv2.INTER_AREA) for o in objects]
    coverage = np.stack(fills).astype(np.float32) / 255
    picture = PAINTERS[domain](rng, coverage, [o.category for o in objects])
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _annotate(objects: list[_Object]) -> list[dict[str, Any]]:
    """Category, box, area and polygons of each object's visible part, in pixels of the image."""
    annotations = []
    hidden = np.zeros_like(objects[0].mask)
    for shape in reversed(objects):
        visible = cv2.subtract(shape.mask, hidden)
        hidden |= shape.mask
        contours, _ = cv2.findContours(visible, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        contours = [cv2.approxPolyDP(contour, 0.5, closed=True) for contour in contours]
        # Slivers under a pixel would stretch a box towards something that nobody can see.
        contours = [c for c in contours if cv2.contourArea(c) >= SUPERSAMPLING**2]
        points = np.concatenate(contours)[:, 0]
        low, high = points.min(axis=0), points.max(axis=0)
        # A contour joins pixels' centres: widened by one pixel, it ends where the pixels end.
        widening = (high - low + 1) / (high - low)
        polygons = [(low + widening * (contour[:, 0] - low)) for contour in contours]
        annotations.append(
            {
                'category_id': shape.category + 1,
                'bbox': (np.concatenate([low, high - low + 1]) / SUPERSAMPLING).tolist(),
                'area': cv2.countNonZero(visible) / SUPERSAMPLING**2,
                'iscrowd': 0,
                'segmentation': [
                    np.round(polygon / SUPERSAMPLING, 3).flatten().tolist() for polygon in polygons
                ],
            }
        )
    return annotations[::-1]
