"""A folder of images and boxes in any of three formats, read as one COCO data set."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .check_coco import check_coco, read_coco
from .coco_faults import level
from .fault import Fault, UnusableImage, counted
from .image_index import SPLIT_WORDS, ImageIndex, nearest, split_in
from .text_files import read_lines, visible_files
from .voc_xml import check_size, class_names, read_objects, read_xml, text_of
from .yolo import has_labels, numbers_in_use, read_labels, read_names, read_yamls
from .yolo_splits import read_splits

FORMATS = ('coco', 'voc', 'yolo')
ReadSize = Callable[[Path], tuple[int, int]]


class Source(NamedTuple):
    """What `read_source` read.

    Args:
        format: 'coco', 'voc' or 'yolo'.
        data: COCO's; file names are relative to the folder of images. Every class has a box.
        splits: the source's own, by image id: 'train', 'val' or 'test' where its files say so.
        faults: what is wrong, and what became of it.
    """

    format: str
    data: dict[str, Any]
    splits: dict[int, str]
    faults: list[Fault]


def read_source(
    root: Path,
    index: ImageIndex,
    read_size: ReadSize,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    listed_only: bool = True,
) -> Source:
    """Reads a data set, whatever its folders are called.

    COCO: every json with images, annotations and categories, or the one named. Pascal VOC: every
    xml with a root `annotation`, and ImageSets/Main if there are lists. YOLO: a text file for an
    image; the classes of data.yaml or classes.txt. Annotations belong to the image of their name,
    the nearest one where several have it. A split is read from lists, from YOLO's data.yaml, or
    from names of folders and files, such as `valid` or `instances_train2017.json`.

    What cannot be used is left out and named in `faults`.

    Args:
        root: folder, or a COCO json.
        index: of the images.
        read_size: width and height of an image; may raise OSError or ValueError.
        format: one of 'coco', 'voc' and 'yolo'; by default what the files are.
        classes: those to keep, in this order; for YOLO, names of all its numbers where no file has
            them. By default all that have a box.
        listed_only: leave out the images of Pascal VOC and YOLO that are in no list, where there
            are lists for train and for another split.

    Raises:
        ValueError: the files are of no format or of several, or not one box can be used.
    """
    format = format or find_format(root, index)
    faults: list[Fault] = []
    readers = dict(
        coco=_read_coco,
        voc=partial(_read_voc, listed_only=listed_only),
        yolo=partial(_read_yolo, classes=classes, listed_only=listed_only),
    )
    read = readers[format](root, index, read_size, faults)
    used = Counter(read.names[annotation['category_id'] - 1] for annotation in read.annotations)
    wanted = classes or read.names
    kept = [name for name in wanted if used[name]]
    if not kept:
        found = ', '.join(sorted(used)) or 'none'
        kinds = ', '.join(f'{kind} {n}' for kind, n in Counter(f.kind for f in faults).items())
        first = f'; the first: {faults[0]}' if faults else ''
        raise ValueError(
            f'no box of {root} can be used; classes with boxes: {found}; faults: '
            f'{kinds or "none"}{first}'
        )
    faults += [
        Fault('class without boxes', root.name, f'{name}; left out')
        for name in wanted
        if name not in kept
    ]
    numbers = {read.names.index(name) + 1: number for number, name in enumerate(kept, 1)}
    annotations = [a for a in read.annotations if a['category_id'] in numbers]
    for number, annotation in enumerate(annotations, 1):
        annotation.update(id=number, category_id=numbers[annotation['category_id']])
    data = dict(
        info=dict(description=root.resolve().stem),
        images=read.images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in enumerate(kept, 1)],
    )
    return Source(format, data, read.splits, faults)


def find_format(root: Path, index: ImageIndex) -> str:
    """The format of a folder's files.

    Raises:
        ValueError: there is none, or there are several.
    """
    if root.is_file():
        if root.suffix == '.json':
            return 'coco'
        raise ValueError(f'{root} is a file: expected a folder, or a COCO json')
    if not root.is_dir():
        raise ValueError(f'the folder {root} does not exist')
    files, unread = _coco_files(root)
    found = ['coco'] if files else []
    if any(map(index.has_stem, visible_files(root, '*.xml'))):
        found.append('voc')
    if any(map(index.has_stem, visible_files(root, '*.txt'))):
        found.append('yolo')
    if len(found) > 1:
        raise ValueError(f'{root} has boxes in several formats, {found}: name one by `--format`')
    if not found:
        raise ValueError(
            f'{root} has no boxes: expected COCO json, or the xml of Pascal VOC or text files of '
            f'YOLO with the names of images, such as {index.paths[0].with_suffix(".xml").name}'
            + ''.join(f'; {error}' for error in unread[:1])
        )
    return found[0]


def _coco_files(root: Path) -> tuple[list[Path], list[Exception]]:
    """The jsons of a folder that are COCO, and why others cannot be read."""
    files, unread = [], []
    for path in visible_files(root, '*.json'):
        try:
            data = read_coco(path, 'utf-8-sig')
        except (OSError, ValueError) as error:
            unread.append(error)
            continue
        if isinstance(data, dict) and {'images', 'annotations', 'categories'} <= set(data):
            files.append(path)
    return files, unread


class _Read:
    """What a reader found: COCO's images and annotations, numbered as they come.

    Args:
        names: of the classes; the first is category 1.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.splits: dict[int, str] = {}

    def add(
        self, path: Path, size: tuple[int, int], split: str | None, keys: dict | None = None
    ) -> int:
        """Adds an image; returns its id."""
        number = len(self.images) + 1
        record = dict(keys or {}, id=number, file_name=path.as_posix())
        record.update(width=size[0], height=size[1])
        self.images.append(record)
        if split is not None:
            self.splits[number] = split
        return number


def _size(path: Path, read_size: ReadSize) -> tuple[int, int]:
    try:
        return read_size(path)
    except (OSError, ValueError) as error:
        raise UnusableImage('broken image', f'{path}: {error}') from error


def _read_lists(root: Path, stems: Collection[str], faults: list[Fault]) -> dict[str, str]:
    """The split of each name in ImageSets/Main; a line may have more after the name.

    Of lists that name no split, `trainval` counts, as train, where no list is train's or val's.
    """
    files = {path.stem.lower(): path for path in visible_files(root, 'ImageSets/Main/*.txt')}
    split_of = {stem: SPLIT_WORDS[stem] for stem in files if stem in SPLIT_WORDS}
    if 'trainval' in files and not {'train', 'val'} & set(split_of.values()):
        split_of['trainval'] = 'train'
    lists: dict[str, str] = {}
    for stem, split in split_of.items():
        lines = read_lines(files[stem])
        lists.update((line if line in stems else line.split()[0], split) for line in lines)
    unknown = [name for name in lists if name not in stems]
    if unknown:
        detail = f'{len(unknown)} names in ImageSets/Main have none, the first {unknown[0]}'
        faults.append(Fault('missing xml', root.name, detail))
    return lists


def _read_trees(
    paths: list[Path], faults: list[Fault]
) -> tuple[dict[Path, ET.Element], list[Path]]:
    """Annotations by their file, and the files that are broken."""
    trees, broken = {}, []
    for path in paths:
        try:
            tree = read_xml(path)
        except UnusableImage as error:
            faults.append(Fault(error.kind, path.stem, f'{error}; left out'))
            broken.append(path)
            continue
        if tree.tag == 'annotation':
            trees[path] = tree
    return trees, broken


def _read_voc(
    root: Path, index: ImageIndex, read_size: ReadSize, faults: list[Fault], listed_only: bool
) -> _Read:
    paths = visible_files(root, '*.xml')
    lists = _read_lists(root, {path.stem for path in paths}, faults)
    trees, broken = _read_trees(paths, faults)
    listed_only &= {'train'} < {lists[path.stem] for path in trees if path.stem in lists}
    names = sorted(set().union(*map(class_names, trees.values())))
    read, seen, unlisted = _Read(names), set(), []
    for path, tree in trees.items():
        where = path.relative_to(root).with_suffix('').as_posix()
        image = index.of_stem(path) or index.named(text_of(tree, 'filename'), path.parent)
        try:
            if image is None:
                raise UnusableImage('missing image', f'no image of {path}, or more than one')
            if image in seen:
                raise UnusableImage('image listed twice', f'{image} has another xml before {path}')
            seen.add(image)
            if listed_only and path.stem not in lists:
                unlisted.append(where)
                continue
            size = _size(index.root / image, read_size)
            check_size(tree, size, where, faults)
        except UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; left out'))
            continue
        split = lists.get(path.stem) if lists else split_in(image) or split_in(Path(where))
        number = read.add(image, size, split)
        for found in read_objects(tree, size, names, where, faults):
            read.annotations.append(dict(found, image_id=number))
    _count('image in no list', 'image', unlisted, root, faults)
    seen |= set(map(index.of_stem, broken))  # which are faults already
    faults += [
        Fault('image without xml', image.as_posix(), 'left out')
        for image in index.paths
        if image not in seen
    ]
    return read


def _count(kind: str, thing: str, left_out: Sequence[Any], root: Path, faults: list[Fault]) -> None:
    """One fault for all that is left out, if anything is."""
    if left_out:
        detail = f'{counted(len(left_out), thing)} left out, the first {left_out[0]}'
        faults.append(Fault(kind, root.name, detail))


def _read_yolo(
    root: Path,
    index: ImageIndex,
    read_size: ReadSize,
    faults: list[Fault],
    classes: Sequence[str] | None,
    listed_only: bool,
) -> _Read:
    files = visible_files(root, '*.txt')
    names = read_names(root, faults)
    if names is None:
        names = _checked_names(root, classes, numbers_in_use(filter(index.has_stem, files)))
    labels: dict[str, list[Path]] = {}
    for path in files:
        labels.setdefault(path.stem, []).append(path.relative_to(root))
    lists = read_splits(root, index, faults) if listed_only else {}
    listed_only &= {'train'} < set(lists.values())
    keypoints = any('kpt_shape' in content for _, content in read_yamls(root))
    read, without, unlisted = _Read(names), 0, []
    for image in index.paths:
        if listed_only and image not in lists:
            unlisted.append(image.as_posix())
            continue
        where = image.with_suffix('').as_posix()
        candidates = labels.get(image.stem, [])
        label = nearest(candidates, image, root)
        try:
            size = _size(index.root / image, read_size)
            if candidates and label is None:
                raise UnusableImage('labels in several files', ', '.join(map(str, candidates)))
            found = []
            if label is not None:
                found = read_labels(root / label, size, len(names), where, faults, keypoints)
        except UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; image left out'))
            continue
        number = read.add(image, size, lists.get(image) if lists else split_in(image))
        without += label is None
        read.annotations += [dict(box, image_id=number) for box in found]
    _count('image in no list', 'image', unlisted, root, faults)
    orphans = [
        path.relative_to(root) for path in files if not index.has_stem(path) and has_labels(path)
    ]
    _count('missing image', 'label file', orphans, root, faults)
    if without:
        detail = f'{counted(without, "image")} without a text file, used as having no boxes'
        faults.append(Fault('image without labels', root.name, detail))
    return read


def _checked_names(root: Path, classes: Sequence[str] | None, in_use: dict[int, Path]) -> list[str]:
    """The names given for YOLO's numbers, if each number that occurs has one."""
    numbers = ', '.join(map(str, in_use)) or 'none'
    if len(in_use) > 1 and len(in_use) == max(in_use) - min(in_use) + 1:
        numbers = f'{min(in_use)} to {max(in_use)}'
    without = f'{root} has no data.yaml or classes.txt with names'
    how = f'name all of them in the order of their numbers by --classes ({numbers} occur)'
    if not classes:
        raise ValueError(f'{without}: {how}')
    beyond = [number for number in in_use if number >= len(classes)]
    if beyond:
        raise ValueError(
            f'{without}, and of the numbers in use {beyond[0]}, first in {in_use[beyond[0]]}, is '
            f'beyond the {len(classes)} names given ({", ".join(classes)}): {how}'
        )
    return list(classes)


def _read_coco(root: Path, index: ImageIndex, read_size: ReadSize, faults: list[Fault]) -> _Read:
    files, unread = ([root], []) if root.is_file() else _coco_files(root)
    if unread:
        raise ValueError(f'{unread[0]}; expected COCO json, or a name that does not end in .json')
    read, seen, named = _Read([]), {}, set()
    for path in files:
        data = _mended(path, faults)
        of_file = {category['id']: category['name'] for category in data['categories']}
        read.names += [name for name in of_file.values() if name not in read.names]
        split = split_in(Path(path.stem)) or split_in(path.parent.relative_to(root.parent))
        ids = {}
        for entry in data['images']:
            where = f'{path.name}: {entry["file_name"]}'
            image = index.listed(entry['file_name'], path)
            named.add(image)
            try:
                if image is None:
                    raise UnusableImage('missing image', f'none below {index.root}, or several')
                if seen.get(image) == path:
                    raise UnusableImage('file listed twice', 'an earlier entry has it, too')
                if image in seen:
                    raise ValueError(
                        f'{image} is in {seen[image]} and in {path}: name one of these files'
                    )
                size = _size(index.root / image, read_size)
                said = entry['width'], entry['height']
                if size != said:
                    sizes = f'json says {said[0]}x{said[1]}, file has {size[0]}x{size[1]}'
                    raise UnusableImage('image size differs', sizes)
            except UnusableImage as error:
                faults.append(Fault(error.kind, where, f'{error}; left out'))
                continue
            seen[image] = path
            ids[entry['id']] = read.add(image, size, split or split_in(image), entry)
        for annotation in data['annotations']:
            name = of_file[annotation['category_id']]
            if annotation['image_id'] in ids:
                numbers = dict(
                    image_id=ids[annotation['image_id']], category_id=read.names.index(name) + 1
                )
                read.annotations.append({**annotation, **numbers})
    unnamed = [image for image in index.paths if image not in named]
    if root.is_dir():
        _count('image in no json', 'image', unnamed, root, faults)
    return read


def _mended(path: Path, faults: list[Fault]) -> dict[str, Any]:
    """A json's data without what MMDetection cannot use."""
    found, data = check_coco(read_coco(path, 'utf-8-sig'))
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
            f'`python tools/check_dataset.py {path}` names all'
        )
    faults += [fault._replace(where=f'{path.name}: {fault.where}') for fault in errors]
    return data
