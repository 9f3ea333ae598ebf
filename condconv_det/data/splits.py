"""A data set dealt out to train, val and test, alike images together."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .coco_files import SPLITS
from .fault import counted

THUMBNAIL = 24  # pixels a side
ALIKE = 0.98  # correlation of thumbnails from which images are near-duplicates
FOLDER = 'folder'  # a key that every image has
_PAIRS = 2**21  # compared at a time


def thumbnail(pixels: ndarray) -> ndarray:
    """What `near_duplicates` compares of an image: grey levels, float32 [24 * 24].

    Args:
        pixels: uint8 [H, W, 3].
    """
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small.mean(2, dtype=np.float32).ravel()


def near_duplicates(thumbnails: ndarray, alike: float = ALIKE) -> ndarray:
    """Numbers images that are nearly the same alike: int [N].

    Copies of another size or compression, and neighbouring frames of a film. An image is in the
    group of all that it resembles.

    Args:
        thumbnails: float [N, 24 * 24].
        alike: correlation of two thumbnails from which they are; above 1 none are.
    """
    centred = thumbnails - thumbnails.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    # an image of one colour resembles none
    units = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-3)
    labels = np.arange(len(units))
    rows = max(1, _PAIRS // max(1, len(units)))
    for start in range(0, len(units), rows):
        first, second = np.nonzero(units[start : start + rows] @ units.T >= alike)
        # the groups so far are the nodes of a graph
        pairs = labels[first + start], labels[second]
        graph = coo_array((np.ones(len(first), bool), pairs), (len(units), len(units)))
        labels = connected_components(graph, directed=False)[1][labels]
    return labels


def groups_of(
    images: Sequence[Mapping[str, Any]], thumbnails: ndarray, alike: float, key: str | None
) -> ndarray:
    """Numbers images that must stay together alike: int [N].

    Near-duplicates, copies that Roboflow made of one image (`name.rf.HASH.jpg`), and images with
    one value of a key; together means in any of these ways, also by way of a third.

    Args:
        images: COCO's records.
        thumbnails, alike: see `near_duplicates`.
        key: of the records, or 'folder', that of the file; None is no key.

    Raises:
        ValueError: an image lacks the key.
    """
    labels = [near_duplicates(thumbnails, alike)]
    sources = [re.sub(r'\.rf\.\w+$', '', PurePath(image['file_name']).stem) for image in images]
    folders = [str(PurePath(image['file_name']).parent) for image in images]
    is_copy = ['.rf.' in PurePath(image['file_name']).stem for image in images]
    labels.append(
        _numbered(
            [name if copy else str(i) + '/' for i, (name, copy) in enumerate(zip(sources, is_copy))]
        )
    )
    if key == FOLDER:
        labels.append(_numbered(folders))
    elif key is not None:
        lacking = [image['file_name'] for image in images if key not in image]
        if lacking:
            known = sorted(set.intersection(*(set(image) for image in images)))
            raise ValueError(
                f'{len(lacking)} of {len(images)} images have no {key!r} to group them by, the '
                f'first {lacking[0]}; all have {", ".join(known)}, and {FOLDER}'
            )
        labels.append(_numbered([str(image[key]) for image in images]))
    # images and labels are the nodes of one graph
    nodes, count = [], len(images)
    for numbers in labels:
        nodes.append(numbers + count)
        count += numbers.max() + 1
    rows = np.tile(np.arange(len(images)), len(labels))
    graph = coo_array((np.ones(len(rows)), (rows, np.concatenate(nodes))), (count, count))
    return connected_components(graph, directed=False)[1][: len(images)]


def _numbered(names: Sequence[str]) -> ndarray:
    return np.unique(names, return_inverse=True)[1].reshape(-1)


def deal(groups: ndarray, boxed: ndarray, ratios: Mapping[str, float], seed: int) -> list[str]:
    """The split of each image: the same for the same arguments.

    Groups go, the largest first and otherwise in random order, where most images are lacking; those
    without a box are dealt out by themselves, after the others.

    Args:
        groups: int [N]; images with one number stay together.
        boxed: bool [N], whether an image has a box.
        ratios: of the splits; their sum is of no matter.
        seed: of the random order.

    Raises:
        ValueError: there are fewer images or groups with boxes than splits.
    """
    numbers, counts = np.unique(groups, return_counts=True)
    has_box = np.isin(numbers, groups[boxed])
    if has_box.sum() < len(ratios):
        parted = f'cannot be parted in {" and ".join(ratios)}'
        if boxed.sum() < len(ratios):
            images = counted(int(boxed.sum()), 'image')
            raise ValueError(f'{images} with boxes {parted}: {len(ratios)} are needed')
        raise ValueError(
            f'{len(groups)} images in {has_box.sum()} groups of alike images with boxes {parted}; '
            '`--alike 2` takes none for alike, and without `--group-by` fewer stay together'
        )
    order = np.random.default_rng(seed).permutation(len(numbers))
    order = order[np.argsort(-counts[order], kind='stable')]
    lacking = dict.fromkeys(ratios, 0.0)
    dealt: dict[Any, str] = {}
    for part in (order[has_box[order]], order[~has_box[order]]):
        for split, ratio in ratios.items():
            lacking[split] += ratio / sum(ratios.values()) * counts[part].sum()
        for place, index in enumerate(part):
            empty = [split for split in ratios if split not in dealt.values()]
            # the last groups are for splits that have none
            choice = empty if len(part) - place <= len(empty) else lacking
            split = max(choice, key=lacking.__getitem__)
            dealt[numbers[index]] = split
            lacking[split] -= counts[index]
    return [dealt[number] for number in groups]


def kept_splits(own: Sequence[str | None]) -> tuple[str, ...]:
    """The source's splits if each image has one, and there are train and another one."""
    present = set(own)
    if None in present or 'train' not in present or len(present) < 2:
        return ()
    return tuple(split for split in SPLITS if split in present)


def split_images(
    own: Sequence[str | None],
    groups: ndarray,
    boxed: ndarray,
    ratios: Mapping[str, float],
    seed: int,
) -> list[str]:
    """The split of each image: the source's own where they are kept, else dealt out.

    A split that the source lacks is dealt out of train.

    Args:
        own: the source's split of each image.
        groups, boxed, ratios, seed: see `deal`.

    Raises:
        ValueError: see `deal`.
    """
    kept = kept_splits(own)
    if not kept:
        return deal(groups, boxed, ratios, seed)
    missing = [split for split in SPLITS if split not in kept]
    found = list(own)
    if missing:
        rest = [index for index, split in enumerate(own) if split == 'train']
        parts = {split: ratios[split] for split in ('train', *missing)}
        dealt = deal(groups[rest], boxed[rest], parts, seed)
        for index, split in zip(rest, dealt):
            found[index] = split
    return found
