"""Images that belong together by a key of their records, such as a camera, a site or a domain."""

import json
from pathlib import Path

import numpy as np
from numpy import ndarray


def image_groups(ann_file: str | Path, key: str) -> dict[str, ndarray]:
    """Which images of COCO annotations are in each group.

    Args:
        ann_file: COCO json.
        key: of its image records, which holds the group's name.

    Returns:
        By name, in order: [N], 1 for the group's images and 0 for others, images in order of id.

    Raises:
        ValueError: an image lacks the key.
    """
    images = sorted(json.loads(Path(ann_file).read_text())['images'], key=lambda image: image['id'])
    for image in images:
        if key not in image:
            raise ValueError(
                f'{ann_file}: every image must have the key {key!r}, image {image["id"]} '
                f'({image["file_name"]}) has {sorted(image)}'
            )
    names = [str(image[key]) for image in images]
    return {name: np.array([other == name for other in names], int) for name in sorted(set(names))}
