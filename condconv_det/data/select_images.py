"""A part of a COCO data set, by a key of its images."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condconv_det.data.check_coco import read_coco
from condconv_det.data.coco_files import SPLITS, write_splits
from condconv_det.data.whole_files import folder_written_whole


def select_images(
    source: Path, out: Path, key: str, values: Sequence[str], num_train: int | None, seed: int
) -> dict[str, Path]:
    """Writes a data set of those images of another whose key has one of some values.

    Categories stay as they are, and images where they are. Of val and test all such images are
    taken. Of the training images each value gets the same share, drawn at random; a smaller share
    is a part of a larger one.

    Args:
        source: data set with `annotations/{train,val,test}.json` and, beside them, its images.
        out: folder to make; all but the annotations are links into `source`, without the configs of
            `tools/new_config.py`, which name the annotations there, and what they have trained.
        key: of the images in the json, such as 'domain'.
        values: of this key, such as 'blood'.
        num_train: training images in all; None for all there are.
        seed: of the draw.

    Returns:
        The json of each split.

    Raises:
        FileExistsError: `out` exists and is not an empty folder.
        OSError: a file cannot be read or written.
        ValueError: a json is none of COCO's, images lack the key, no image of a split has a value,
            a value is named twice, or it has too few training images for its share.
    """
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f'values of {key!r} are named twice: {", ".join(repeated)}')
    splits = {}
    for split in SPLITS:
        path = source / 'annotations' / f'{split}.json'
        data = _read(path)
        by_value = _images_by_value(path, data, key, values)
        if split == 'train' and num_train is not None:
            by_value = _equal_shares(by_value, num_train, seed)
        kept = {image['id'] for images in by_value.values() for image in images}
        splits[split] = {
            **data,
            'images': [image for image in data['images'] if image['id'] in kept],
            'annotations': [box for box in data['annotations'] if box['image_id'] in kept],
        }
    with folder_written_whole(out) as folder:
        configs = source.glob('*.py')
        left_out = {'annotations', folder.name}  # itself, where `out` is in `source`
        left_out.update(name for config in configs for name in (config.name, config.stem))
        for entry in source.iterdir():
            if entry.name not in left_out:
                (folder / entry.name).symlink_to(entry.resolve())
        files = write_splits(folder / 'annotations', splits)
    return {split: out / path.relative_to(folder) for split, path in files.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; expected the json of each split there')
    data = read_coco(path)
    lists = ('images', 'annotations')
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in lists):
        raise ValueError(f'{path} is not a COCO json: it lacks a list of images or annotations')
    return data


def _images_by_value(
    path: Path, data: dict[str, Any], key: str, values: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    if lacking := [image for image in data['images'] if key not in image]:
        raise ValueError(f'{path}: {len(lacking)} images have no {key!r}, as {lacking[0]}')
    found: dict[str, list[dict[str, Any]]] = {value: [] for value in values}
    for image in data['images']:
        if str(image[key]) in found:
            found[str(image[key])].append(image)
    if empty := [value for value, images in found.items() if not images]:
        there = sorted({str(image[key]) for image in data['images']})
        raise ValueError(
            f'{path}: no image has {key} {", ".join(map(repr, empty))}, but {", ".join(there)}'
        )
    return found


def _equal_shares(
    by_value: dict[str, list[dict[str, Any]]], number: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """So many images in all, of each value as many, or one more of the first ones."""
    share, more = divmod(number, len(by_value))
    if not share:
        raise ValueError(f'{number} training images are too few for {len(by_value)} values')
    drawn = {}
    for place, (value, images) in enumerate(by_value.items()):
        wanted = share + (place < more)
        if wanted > len(images):
            raise ValueError(f'{value!r} has {len(images)} training images, {wanted} are wanted')
        drawn[value] = random.Random(seed).sample(images, len(images))[:wanted]
    return drawn
