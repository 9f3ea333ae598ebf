"""Text files of YOLO in folders of any names as a data set."""

from collections.abc import Sequence
from pathlib import Path

from .fault import Fault, UnusableImage, counted
from .image_index import ImageIndex, nearest, split_in
from .source_records import ReadSize, Records, name_left_out, size_of
from .text_files import composed, visible_files
from .yolo import has_labels, numbers_in_use, read_labels, read_names, read_yamls
from .yolo_splits import read_splits


def read_yolo_source(
    root: Path,
    index: ImageIndex,
    read_size: ReadSize,
    faults: list[Fault],
    classes: Sequence[str] | None,
    listed_only: bool,
) -> Records:
    """The images of a folder, each with the boxes of the text file of its name.

    A text file belongs to one image: of several of its name, to the nearest.

    Args:
        faults: what is left out is added here.
        classes: names of all numbers, for folders without a file of them.
        listed_only: leave out images that no split's list has, if train and another split do; but a
            folder `test` with boxes, which data.yaml need not name, is the split test.

    Raises:
        ValueError: numbers of classes have no names.
    """
    files = visible_files(root, '*.txt')
    names = read_names(root, faults)
    if names is None:
        names = _checked_names(root, classes, numbers_in_use(filter(index.has_stem, files)))
    labels: dict[str, list[Path]] = {}
    for path in files:
        labels.setdefault(composed(path.stem), []).append(path.relative_to(root))
    lists = read_splits(root, index, faults) if listed_only else {}
    listed_only &= {'train'} < set(lists.values())
    if listed_only and 'test' not in lists.values():
        lists |= dict.fromkeys(_in_test_folders(index, lists, files), 'test')
    keypoints = any('kpt_shape' in content for _, content in read_yamls(root))
    records, without, unlisted = Records(names), 0, []
    for image in index.paths:
        if listed_only and image not in lists:
            unlisted.append(image.as_posix())
            continue
        where = image.with_suffix('').as_posix()
        # `7.txt` and `7.jpg.txt`
        candidates = labels.get(composed(image.stem), []) + labels.get(composed(image.name), [])
        label = nearest(candidates, image, root)
        try:
            size = size_of(index.root / image, read_size)
            if candidates and label is None:
                raise UnusableImage('labels in several files', ', '.join(map(str, candidates)))
            if label is not None:
                owner = index.of_stem(root / label)
                if owner is None:
                    raise UnusableImage('labels of several images', str(label))
                if owner != image:
                    label = None
            found = []
            if label is not None:
                found = read_labels(root / label, size, len(names), where, faults, keypoints)
        except UnusableImage as error:
            faults.append(Fault(error.kind, where, f'{error}; image left out'))
            continue
        number = records.add(image, size, lists.get(image) if lists else split_in(image))
        without += label is None
        records.annotations += [dict(box, image_id=number) for box in found]
    name_left_out('image in no list', 'image', unlisted, root, faults)
    orphans = [
        path.relative_to(root) for path in files if not index.has_stem(path) and has_labels(path)
    ]
    name_left_out('missing image', 'label file', orphans, root, faults)
    if without:
        detail = f'{counted(without, "image")} without a text file, used as having no boxes'
        faults.append(Fault('image without labels', root.name, detail))
    return records


def _in_test_folders(index: ImageIndex, lists: dict[Path, str], files: list[Path]) -> set[Path]:
    """Images of folders called `test` that are in no list, if some of them have boxes."""
    found = {
        image
        for image in index.paths
        if image not in lists and split_in(image.parent / '-') == 'test'
    }
    boxed = any(index.of_stem(path) in found and has_labels(path) for path in files)
    return found if boxed else set()


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
