"""A check that head, config and data speak of the same classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from condconv_det.data.check_coco import read_coco
from condconv_det.weights.fit import listing


def check_classes(model: nn.Module, dataset: Dataset) -> None:
    """Compares the class lists of a detector's or classifier's head, its config and its data.

    mmdet's data sets do not notice classes that the annotation file does not have: they leave them
    out, so that boxes get the names of others. mmpretrain numbers classes by their folders, in
    alphabetical order, whatever the config's order.

    Args:
        model: whose heads have `num_classes`.
        dataset: built, maybe inside wrappers.

    Raises:
        ValueError: the head has another number of classes than the data set, the annotation file
            lacks some of the data set's classes, or class folders have another order.
    """
    classes = dataset.metainfo.get('classes')
    if classes is None:
        return
    for name, module in model.named_modules():
        # one-stage `bbox_head`, two-stage `roi_head.bbox_head`, cascades `roi_head.bbox_head.0`,
        # classifiers `head`
        is_head = {'bbox_head', 'head'} & {*name.split('.')} and hasattr(module, 'num_classes')
        if is_head and module.num_classes != len(classes):
            raise ValueError(
                f'{type(module).__name__} has num_classes={module.num_classes}, but the data set '
                f'names {len(classes)} classes: {", ".join(classes)}'
            )
    while hasattr(dataset, 'dataset'):  # RepeatDataset and its like
        dataset = dataset.dataset
    if len(getattr(dataset, 'cat_ids', classes)) != len(classes):
        raise ValueError(_difference(dataset.ann_file, classes))
    folders = list(getattr(dataset, 'folder_to_idx', None) or ())
    # ImageNet's folders have names of their own
    if set(folders) & set(classes) and folders != list(classes):
        raise ValueError(
            f'{dataset.img_prefix} has the class folders {", ".join(folders)}, but the config '
            f'names {", ".join(classes)}; name the classes as their folders, in alphabetical order'
        )


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
