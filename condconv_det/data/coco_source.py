"""COCO jsons of any names and folders as a data set."""

import shlex
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from .check_coco import check_coco, read_coco
from .check_images import with_file_sizes
from .coco_faults import level
from .fault import Fault, UnusableImage
from .image_index import ImageIndex, split_in
from .source_records import ReadSize, Records, name_left_out, size_of
from .text_files import visible_files

# what COCO calls its files for other tasks, of the images that `instances_*` has
_OTHER_TASKS = ('captions_', 'panoptic_', 'person_keypoints_', 'stuff_')


def coco_files(root: Path) -> tuple[list[Path], list[Exception]]:
    """The jsons of a folder that are COCO's for boxes, and why others cannot be read."""
    files, unread = [], []
    paths = visible_files(root, '*.json')
    others = _of_other_tasks(paths)
    for path in paths:
        if path in others:
            continue
        try:
            data = read_coco(path, 'utf-8-sig')
        except (OSError, ValueError) as error:
            unread.append(error)
            continue
        if isinstance(data, dict) and {'images', 'annotations', 'categories'} <= set(data):
            files.append(path)
    return files, unread


def _of_other_tasks(paths: list[Path]) -> list[Path]:
    """Of jsons, those for keypoints, captions and the like that lie beside `instances_*`."""
    folders = {path.parent for path in paths if path.name.startswith('instances_')}
    return [path for path in paths if path.name.startswith(_OTHER_TASKS) and path.parent in folders]


def read_coco_source(
    root: Path, index: ImageIndex, read_size: ReadSize, faults: list[Fault]
) -> Records:
    """The COCO jsons of a folder, or one json, as one numbering of images, classes and boxes.

    Args:
        faults: what is left out is added here.

    Raises:
        ValueError: a json cannot be read, has faults for a person to mend, or an image is in two.
    """
    files, unread = ([root], []) if root.is_file() else coco_files(root)
    if unread:
        raise ValueError(f'{unread[0]}; expected COCO json, or a name that does not end in .json')
    records, seen, named = Records([]), {}, set()
    read_size = cache(read_size)  # what a json lacks is read before the rest
    contents = {path: _mended(path, index, read_size, faults) for path in files}
    by_path = {
        (path, entry['file_name']): index.at(entry['file_name'], path)
        for path, data in contents.items()
        for entry in data['images']
    }
    exact = set(by_path.values())
    for path, data in contents.items():
        of_file = {category['id']: category['name'] for category in data['categories']}
        records.names += [name for name in of_file.values() if name not in records.names]
        split = split_in(Path(path.stem)) or split_in(path.relative_to(root.parent))
        ids = {}
        for entry in data['images']:
            where = f'{path.name}: {entry["file_name"]}'
            at_path = by_path[path, entry['file_name']]
            image = at_path or index.named(entry['file_name'], path)
            named.add(image)
            try:
                if image is None:
                    raise UnusableImage('missing image', f'none below {index.root}, or several')
                if seen.get(image) == path or (at_path is None and image in exact):
                    raise UnusableImage('file listed twice', 'another entry has it, too')
                if image in seen:
                    raise ValueError(
                        f'{image} is in {seen[image]} and in {path}: name one of these files'
                    )
                size = size_of(index.root / image, read_size)
                said = entry['width'], entry['height']
                if size != said:
                    sizes = f'json says {said[0]}x{said[1]}, file has {size[0]}x{size[1]}'
                    raise UnusableImage('image size differs', sizes)
            except UnusableImage as error:
                faults.append(Fault(error.kind, where, f'{error}; left out'))
                continue
            seen[image] = path
            ids[entry['id']] = records.add(image, size, split or split_in(image), entry)
        for annotation in data['annotations']:
            name = of_file[annotation['category_id']]
            if annotation['image_id'] in ids:
                numbers = dict(
                    image_id=ids[annotation['image_id']], category_id=records.names.index(name) + 1
                )
                records.annotations.append({**annotation, **numbers})
    unnamed = [image for image in index.paths if image not in named]
    if root.is_dir():
        others = [path.relative_to(root) for path in _of_other_tasks(visible_files(root, '*.json'))]
        name_left_out('json of another task', 'json', others, root, faults)
        name_left_out('image in no json', 'image', unnamed, root, faults)
    return records


def _mended(
    path: Path, index: ImageIndex, read_size: ReadSize, faults: list[Fault]
) -> dict[str, Any]:
    """A json's data without what MMDetection cannot use; sizes that it lacks are the files'."""

    def find(name: str) -> Path | None:
        image = index.listed(name, path)
        return None if image is None else index.root / image

    said = read_coco(path, 'utf-8-sig')
    found, data = check_coco(said)
    if any(fault.kind == 'image incomplete' for fault in found):
        said, missing = with_file_sizes(said, find, read_size)
        found, data = check_coco(said)
        found = missing + found
    # a file listed twice is left out and named with its path
    errors = [
        fault
        for fault in found
        if level(fault, evaluated=True) != 'note' and fault.kind != 'file listed twice'
    ]
    if data is None:
        named = '; '.join(map(str, islice(errors, 3)))
        raise ValueError(
            f'{path} has faults for a person to mend: {named}; '
            f'`python tools/check_dataset.py {shlex.quote(str(path))}` names all'
        )
    faults += [fault._replace(where=f'{path.name}: {fault.where}') for fault in errors]
    return data
