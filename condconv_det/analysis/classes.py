"""A check that head, config and data speak of the same classes."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmdet.datasets import MOTChallengeDataset
from torch import nn
from torch.utils.data import Dataset

from condconv_det.data.check_coco import read_coco
from condconv_det.data.leaf_datasets import leaf_datasets
from condconv_det.weights.fit import listing


def named_classes(dataset: Dataset) -> tuple[str, ...]:
    """The classes that a data set's config names; none where it names none.

    Args:
        dataset: built, maybe several inside wrappers.

    Raises:
        ValueError: parts of it name other classes, or the same in another order, or a text.
    """
    named = [part.metainfo.get('classes') for part in leaf_datasets(dataset)]
    for classes in named:
        if isinstance(classes, str):  # mmengine has read it if it is a file
            raise ValueError(
                f'metainfo.classes must be a tuple of names or a file of them, got {classes!r}, '
                f'which is no file; one class is ({classes!r},)'
            )
    first, *others = dict.fromkeys(tuple(classes) for classes in named if classes) or [()]
    if others:
        raise ValueError(
            f'parts of the data set name other classes: {", ".join(first)}; {", ".join(others[0])}'
        )
    return first


def finds_words(model: nn.Module) -> bool:
    """Whether a detector finds what a text names, as Grounding DINO and GLIP do.

    Its `num_classes` is no number of classes, and it is tested on others than it was trained for.
    """
    return any(name.rpartition('.')[2] == 'language_model' for name, _ in model.named_modules())


def check_classes(model: nn.Module, dataset: Dataset) -> None:
    """Compares the class lists of a detector's or classifier's head, its config and its data.

    mmdet's data sets do not notice classes that the annotation file does not have: they leave them
    out, so that boxes get the names of others. They number classes by the file, whatever the
    config's order, as mmpretrain does by folders, in alphabetical order.

    Args:
        model: whose heads have `num_classes`.
        dataset: built, maybe several inside wrappers.

    Raises:
        ValueError: the head has another number of classes than the data set, or than a panoptic one
            has things, parts of the data set name other classes, an annotation file lacks some of
            them or has them in another order, or class folders have another order.
    """
    if finds_words(model):
        for part in leaf_datasets(dataset):  # each may have classes of its own
            _check_categories(part, part.metainfo.get('classes') or ())
        return
    classes = named_classes(dataset)
    # of MOT's ground truth, in MMDetection's own configs for detectors of pedestrians
    if not classes or classes == MOTChallengeDataset.METAINFO['classes']:
        return
    things = next(leaf_datasets(dataset)).metainfo.get('thing_classes', classes)
    counts = len(classes), len({*things} & {*classes})
    for name, module in model.named_modules():
        # one-stage `bbox_head`, two-stage `roi_head.bbox_head`, cascades `roi_head.bbox_head.0`,
        # classifiers `head`
        is_head = {'bbox_head', 'head'} & {*name.split('.')} and hasattr(module, 'num_classes')
        if is_head and module.num_classes not in counts:
            raise ValueError(
                f'{type(module).__name__} has num_classes={module.num_classes}, but the data set '
                f'names {len(classes)} classes: {", ".join(classes)}'
            )
    for part in leaf_datasets(dataset):
        _check_categories(part, classes)
        folders = list(getattr(part, 'folder_to_idx', None) or ())
        # ImageNet's folders have names of their own
        if set(folders) & set(classes) and folders != list(classes):
            raise ValueError(
                f'{part.img_prefix} has the class folders {", ".join(folders)}, but the config '
                f'names {", ".join(classes)}; name the classes as their folders, in alphabetical '
                'order'
            )


def _check_categories(dataset: Dataset, classes: Sequence[str]) -> None:
    """Compares the categories that a data set took from its COCO json with the config's classes."""
    taken = getattr(dataset, 'cat_ids', None)
    if taken is None or not classes:
        return
    if len(taken) != len(classes):
        raise ValueError(_difference(dataset.ann_file, classes))
    file = Path(dataset.ann_file)
    if not file.is_file():  # in a store that cannot be read from here
        return
    categories = _categories(file, file.stat().st_mtime_ns)
    names = {category['id']: category['name'] for category in categories}
    numbered = [names[category] for category in taken]
    # LVIS's have names of their own
    if sorted(numbered) == sorted(classes) and numbered != list(classes):
        number = next(index for index, name in enumerate(classes) if name != numbered[index])
        raise ValueError(
            f'{dataset.ann_file} has the classes in another order than the config, and mmdet '
            f'numbers them by the file: class {number} is {numbered[number]!r} there and '
            f'{classes[number]!r} here'
        )


@lru_cache  # of a file as it is, which each validation asks for
def _categories(ann_file: Path, written: int) -> list[dict[str, Any]]:
    return read_coco(ann_file)['categories']


def _difference(ann_file: Path | str, classes: Sequence[str]) -> str:
    """How the categories of a COCO json differ from the classes that a config names."""
    names = [category['name'] for category in read_coco(ann_file)['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        return (
            f'{ann_file} lacks {len(missing)} of the {len(classes)} classes that the config names: '
            f'{listing(missing)}; it has {listing(names)}. Set metainfo=dict(classes=...) of the '
            "data set to names that the file has, in the file's order, and the head's num_classes"
        )
    twice = [name for name, count in Counter([*names, *classes]).items() if count > 2]
    return f'{ann_file} or the config names a class twice: {listing(twice)}'
