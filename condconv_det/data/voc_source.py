"""Xml files of Pascal VOC in folders of any names as a data set."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

from .decode import SUFFIXES
from .fault import Fault, UnusableImage, counted
from .image_index import SPLIT_WORDS, ImageIndex, nearest, split_in
from .source_records import ReadSize, Records, name_left_out, size_of
from .text_files import composed, read_lines, visible_files
from .voc_xml import check_size, class_names, read_objects, read_xml, text_of


def read_voc_source(
    root: Path, index: ImageIndex, read_size: ReadSize, faults: list[Fault], listed_only: bool
) -> Records:
    """The xml files of a folder, each with the image of its name, or else of its `filename`.

    Args:
        faults: what is left out is added here.
        listed_only: leave out what no list of ImageSets/Main has, if train and another split do.
    """
    paths = visible_files(root, '*.xml')
    lists = _read_lists(root, paths, faults)
    trees, broken = _read_trees(paths, faults)
    listed_only &= {'train'} < {lists[path] for path in trees if path in lists}
    names = sorted(set().union(*map(class_names, trees.values())))
    records, seen, unlisted = Records(names), set(), []
    of_stem = defaultdict(set)
    for path in paths:
        of_stem[composed(path.stem)].add(path.relative_to(root))
    for path, tree in trees.items():
        inside = path.relative_to(root)
        where = inside.with_suffix('').as_posix()
        image = index.of_stem(path) or index.named(text_of(tree, 'filename'), path.parent)
        if image is not None:
            files = of_stem[composed(image.stem)] | of_stem[composed(image.name)] | {inside}
            owner = nearest([*files], image, root)
            if owner not in (None, inside):
                image = None
        try:
            if image is None:
                raise UnusableImage('missing image', f'no image of {path}, or more than one')
            if image in seen:
                raise UnusableImage('image listed twice', f'{image} has another xml before {path}')
            seen.add(image)
            if listed_only and path not in lists:
                unlisted.append(where)
                continue
            size = size_of(index.root / image, read_size)
            check_size(tree, size, where, faults)
        except UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; left out'))
            continue
        split = lists.get(path) if lists else split_in(image) or split_in(Path(where))
        number = records.add(image, size, split)
        for found in read_objects(tree, size, names, where, faults):
            records.annotations.append(dict(found, image_id=number))
    name_left_out('image in no list', 'image', unlisted, root, faults)
    seen |= set(map(index.of_stem, broken))  # which are faults already
    faults += [
        Fault('image without xml', image.as_posix(), 'left out')
        for image in index.paths
        if image not in seen
    ]
    return records


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


def _read_lists(root: Path, paths: Sequence[Path], faults: list[Fault]) -> dict[Path, str]:
    """The split that a list of ImageSets/Main has of an xml's name, by the xml.

    A list speaks for the files of its data set, which is the folder of ImageSets, so that VOC2007
    and VOC2012 may lie side by side, and for those that are in no such folder. A line may have more
    after the name, or folders before it and an image's ending. Of lists that name no split,
    `trainval` counts, as train, where no list of its data set is train's or val's.
    """
    of_folder: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in visible_files(root, 'ImageSets/Main/*.txt'):
        of_folder[path.parents[2]][path.stem.lower()] = path
    elsewhere = [path for path in paths if not any(map(path.is_relative_to, of_folder))]
    lists: dict[Path, str] = {}
    unknown: list[str] = []
    again: set[Path] = set()
    for folder, files in of_folder.items():
        by_stem = defaultdict(list)
        for path in paths:
            if path.is_relative_to(folder):
                by_stem[composed(path.stem)].append(path)
        for path in elsewhere:
            by_stem.setdefault(composed(path.stem), [path])
        split_of = {stem: SPLIT_WORDS[stem] for stem in files if stem in SPLIT_WORDS}
        if 'trainval' in files and not {'train', 'val'} & set(split_of.values()):
            split_of['trainval'] = 'train'
        for stem, split in split_of.items():
            for line in read_lines(files[stem]):
                name = next(filter(by_stem.__contains__, _names_in(line)), None)
                found = by_stem[name] if name else []
                again.update(path for path in found if lists.get(path, split) != split)
                lists.update(dict.fromkeys(found, split))
                unknown += [] if name else [line]
    if again:
        detail = f'{counted(len(again), "image")}, the first {min(again).stem}; each used in one'
        faults.append(Fault('image in several splits', root.name, detail))
    if unknown:
        detail = f'{len(unknown)} names in ImageSets/Main have none, the first {unknown[0]}'
        faults.append(Fault('missing xml', root.name, detail))
        if not lists:
            detail = 'no name in ImageSets/Main has an xml; all images are dealt out anew'
            faults.append(Fault('splits not kept', root.name, detail))
    return lists


def _names_in(line: str) -> list[str]:
    """The names without ending that a line may mean, the whole line first."""
    names = []
    for text in (line, line.split()[0]):
        path = PurePath(composed(text).replace('\\', '/'))
        names += [composed(text), path.name]
        names += [path.stem] if path.suffix.lower() in SUFFIXES else []
    return names
