"""Compares the image files of a COCO data set with their entries in the json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .fault import Fault
from .image_size import loaded_size


class ImageCheck(NamedTuple):
    """What `check_images` found, in how many of the files."""

    faults: list[Fault]
    unusable: set[Any]  # image ids
    checked: int


def check_images(
    data: dict[str, Any],
    folder: Path | str,
    max_images: int | None = None,
    read_size: Callable[[Path], tuple[int, int]] = loaded_size,
) -> ImageCheck:
    """Finds images that are missing, broken, or of another size than the json says.

    Args:
        data: COCO's; entries that `check_coco` calls incomplete are passed over.
        folder: that the file names are relative to.
        max_images: as many are looked at, evenly spread over the list; None is all.
        read_size: width and height of a file; may raise OSError or ValueError.
    """
    entries = data['images']
    step = 1 if max_images is None else max(1, -(-len(entries) // max_images))
    faults, unusable, checked = [], set(), 0
    for entry in entries[::step]:
        try:
            image_id, name = entry['id'], entry['file_name']
            said = entry['width'], entry['height']
            path = Path(folder, name)
            hash(image_id)
        except (TypeError, KeyError, IndexError):
            continue
        checked += 1
        found = _check_file(path, said, read_size)
        if found:
            where = f'image {image_id!a} {name!a}'
            faults.append(Fault(found[0], where, found[1]))
            unusable.add(image_id)
    if checked and len(faults) == checked:
        detail = f'not one of the {checked} looked at can be used; the first: {faults[0]}'
        faults.append(Fault('no usable image', f'{Path(folder)}', detail))
    return ImageCheck(faults, unusable, checked)


def with_file_sizes(
    data: dict[str, Any],
    find: Callable[[str], Path | None],
    read_size: Callable[[Path], tuple[int, int]] = loaded_size,
) -> tuple[dict[str, Any], list[Fault]]:
    """COCO's data with a file's size where the json says none, and a fault for each image.

    Args:
        data: with a list of images; not changed.
        find: the file that a file name stands for.
        read_size: see `check_images`; an image whose file cannot be read stays as it is.
    """
    images, faults = [], []
    for entry in data['images']:
        size = None
        if isinstance(entry, dict) and not (entry.get('width') or entry.get('height')):
            size = _file_size(entry.get('file_name'), find, read_size)
        if size is None:
            images.append(entry)
            continue
        images.append({**entry, 'width': size[0], 'height': size[1]})
        where = f'image {entry.get("id")!a} {entry["file_name"]!a}'
        detail = f'json says none, file has {size[0]}x{size[1]}; used the file'
        faults.append(Fault('image size missing', where, detail))
    return {**data, 'images': images}, faults


def _file_size(
    name: Any, find: Callable[[str], Path | None], read_size: Callable[[Path], tuple[int, int]]
) -> tuple[int, int] | None:
    try:
        path = find(name) if isinstance(name, str) else None
        return None if path is None else read_size(path)
    except (OSError, ValueError):
        return None


def _check_file(
    path: Path, said: tuple[Any, Any], read_size: Callable[[Path], tuple[int, int]]
) -> tuple[str, str] | None:
    """Kind and detail of what is wrong with a file."""
    try:
        size = read_size(path)
    except FileNotFoundError:
        return 'image file missing', f'no {str(path)!a}'
    except (OSError, ValueError) as error:
        return 'image file broken', ascii(' '.join(str(error).split()))[1:-1]
    if size != said:
        return 'image size differs', f'json says {said[0]}x{said[1]}, file has {size[0]}x{size[1]}'
    return None
