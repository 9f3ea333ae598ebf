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
