"""Images and boxes of any format, checked, split and written as COCO json."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from tqdm import tqdm

from .coco_files import SPLITS, write_splits
from .decode import decode
from .fault import Fault
from .image_index import ImageIndex
from .sources import read_source
from .splits import ALIKE, groups_of, kept_splits, split_images, thumbnail

RATIOS = {'train': 0.7, 'val': 0.15, 'test': 0.15}


class Prepared(NamedTuple):
    """What `prepare` wrote.

    Args:
        format: of the source.
        classes: in the order of their ids.
        images: folder that the json's file names are relative to.
        files: json by split.
        num_images: by split.
        boxes: by split and class, without crowds.
        sides: of the training boxes, as parts of their image's width and height, [N, 2].
        kept_splits: those of the source that were kept.
        alike: images that stay with others, see `groups_of`.
        leaks: those of val and test that stay with one of another split all the same, for the
            source has it so.
        background: training images without a box.
        faults: what is wrong with the source, and what became of it.
    """

    format: str
    classes: tuple[str, ...]
    images: Path
    files: dict[str, Path]
    num_images: dict[str, int]
    boxes: dict[str, Counter[str]]
    sides: ndarray
    kept_splits: tuple[str, ...]
    alike: int
    leaks: int
    background: int
    faults: list[Fault]


class _Decoder:
    """Decodes each image once; keeps its size and its thumbnail."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar
        self.thumbnails: dict[Path, ndarray] = {}

    def size(self, path: Path) -> tuple[int, int]:
        self.bar.update()
        pixels = decode(path.read_bytes())
        self.thumbnails[path] = thumbnail(pixels)
        return pixels.shape[1], pixels.shape[0]


def prepare(
    root: Path,
    out: Path,
    images: Path | None = None,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    ratios: Mapping[str, float] = RATIOS,
    seed: int = 0,
    group_by: str | None = None,
    alike: float = ALIKE,
    resplit: bool = False,
) -> Prepared:
    """Writes `out/annotations/{train,val,test}.json` for a data set, which is only read.

    Each image is decoded once, to its end. Images that are nearly the same, and those with one
    value of `group_by`, come into one split.

    Args:
        root: COCO json, or a folder in one of the formats of `read_source`.
        out: folder outside `root`, made if need be.
        images: folder of the images; by default `root`, or that of the json.
        format, classes: see `read_source`.
        ratios: of train, val and test; their sum is of no matter.
        seed: of the random order in which images are dealt out.
        group_by: a key of COCO's image records, or 'folder'.
        alike: correlation of thumbnails from which images are near-duplicates; above 1 none are.
        resplit: deals out all images, though the source may have splits of its own, and lists that
            lack some.

    Raises:
        ValueError: an argument or the source is unusable, or a split would have no box but of
            crowds, or train none that is neither a crowd nor ignored.
        OSError: a file cannot be read or written.
    """
    _check_arguments(root, out, classes, ratios, seed)
    index = ImageIndex(images or (root.parent if root.is_file() else root))
    with tqdm(desc='images', total=len(index.paths), leave=False, disable=None) as bar:
        decoder = _Decoder(bar)
        source = read_source(root, index, decoder.size, format, classes, listed_only=not resplit)
    records = source.data['images']
    thumbnails = np.stack([decoder.thumbnails[index.root / r['file_name']] for r in records])
    groups = groups_of(records, thumbnails, alike, group_by)
    own = [None if resplit else source.splits.get(record['id']) for record in records]
    in_boxes = {a['image_id'] for a in source.data['annotations'] if not a['iscrowd']}
    boxed = np.array([record['id'] in in_boxes for record in records])
    split_of = split_images(own, groups, boxed, ratios, seed)
    by_split = {split: _part(source.data, split_of, split) for split in SPLITS}
    for split, data in by_split.items():
        if all(annotation['iscrowd'] for annotation in data['annotations']):
            raise ValueError(
                f'none of the {len(data["images"])} images that {root} has for {split} has a box '
                'that is no crowd; `--resplit` deals out all images anew; images that nobody '
                'labelled must be elsewhere, for they would count as background'
            )
    train = by_split['train']
    sides = _sides(train)
    if not len(sides):
        raise ValueError('no box of the training images may be learned: all are crowds or ignored')
    num_groups = Counter(groups.tolist())
    return Prepared(
        format=source.format,
        classes=tuple(category['name'] for category in source.data['categories']),
        images=index.root.resolve(),
        files=write_splits(out / 'annotations', by_split),
        num_images={split: len(data['images']) for split, data in by_split.items()},
        boxes={split: _boxes(data) for split, data in by_split.items()},
        sides=sides,
        kept_splits=kept_splits(own),
        alike=sum(num_groups[group] > 1 for group in groups.tolist()),
        leaks=_count_leaks(groups, split_of),
        background=len(train['images']) - len({a['image_id'] for a in train['annotations']}),
        faults=source.faults + _split_faults(root, own, records),
    )


def _check_arguments(
    root: Path,
    out: Path,
    classes: Sequence[str] | None,
    ratios: Mapping[str, float],
    seed: int,
) -> None:
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f'the output folder {out} must lie outside the source {root}')
    if classes is not None and len(set(classes)) < len(classes):
        raise ValueError(f'a class is given more than once: {", ".join(classes)}')
    if set(ratios) != set(SPLITS) or not all(0 < ratio < math.inf for ratio in ratios.values()):
        raise ValueError(f'ratios must be above 0 for {SPLITS}, got {dict(ratios)}')
    if seed < 0:
        raise ValueError(f'seed must be at least 0, got {seed}')


def _split_faults(
    root: Path, own: Sequence[str | None], records: Sequence[Mapping[str, Any]]
) -> list[Fault]:
    """Why splits of the source are not kept, if it has several."""
    present = {split for split in own if split is not None}
    if len(present) < 2 or kept_splits(own):
        return []
    without = [image['file_name'] for image, split in zip(records, own) if split is None]
    reason = 'none is train'
    if without:
        reason = f'{len(without)} of {len(own)} images are in none, the first {without[0]}'
    return [Fault('splits not kept', root.name, f'{reason}; all images are dealt out anew')]


def _sides(data: dict[str, Any]) -> ndarray:
    """Sides of the boxes to learn as parts of their image's, [N, 2]."""
    sizes = {image['id']: (image['width'], image['height']) for image in data['images']}
    sides = [
        np.divide(annotation['bbox'][2:], sizes[annotation['image_id']])
        for annotation in data['annotations']
        if not (annotation.get('ignore') or annotation['iscrowd'])
    ]
    return np.array(sides).reshape(-1, 2)


def _part(data: dict[str, Any], split_of: Sequence[str], split: str) -> dict[str, Any]:
    images = [image for image, found in zip(data['images'], split_of) if found == split]
    ids = {image['id'] for image in images}
    annotations = [a for a in data['annotations'] if a['image_id'] in ids]
    info = dict(description=f'{data["info"]["description"]}, {split}')
    return dict(data, info=info, images=images, annotations=annotations)


def _boxes(data: dict[str, Any]) -> Counter[str]:
    names = {category['id']: category['name'] for category in data['categories']}
    return Counter(names[a['category_id']] for a in data['annotations'] if not a['iscrowd'])


def _count_leaks(groups: ndarray, split_of: Sequence[str]) -> int:
    """Images of val and test whose group is also in another split."""
    splits: dict[int, set[str]] = {}
    for group, split in zip(groups.tolist(), split_of):
        splits.setdefault(group, set()).add(split)
    return sum(
        split != 'train' and len(splits[group]) > 1
        for group, split in zip(groups.tolist(), split_of)
    )
