"""A site's images: which they are, and as a network gets them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from condconv_det.analysis.configs import errors_named
from condconv_det.analysis.routing_records import group_by_attribute
from condconv_det.engine.dataset_check_hook import leaf_datasets
from condconv_det.weights.fit import listing


def images_by_key(
    cfg: Config, key: str, split: str = 'val', only: Sequence[str] | None = None
) -> dict[str, list[Path]]:
    """The images of a config's data set by the values of a key that they have in its COCO json.

    Args:
        cfg: of a detector.
        key: such as 'domain'.
        split: 'val' or 'train'.
        only: values to keep, None for all.

    Raises:
        ValueError: there is no such data set, it is not COCO json, the key makes no groups, or a
            value of `only` is not there.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no {split}_dataloader, whose images would be grouped')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with errors_named(f'config {cfg.filename}'):
        datasets = list(leaf_datasets(DATASETS.build(loader.dataset)))
    found: dict[str, list[Path]] = {}
    for dataset in datasets:
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        grouping = group_by_attribute(dataset, infos, key)
        for index, name in enumerate(grouping.groups):
            files = [Path(infos[image]['img_path']) for image in grouping.images(index)]
            found.setdefault(name, []).extend(files)
    unknown = [value for value in only or () if value not in found]
    if unknown:
        raise ValueError(f'no image has {key} {listing(unknown)}; there are {listing(found)}')
    return {name: files for name, files in found.items() if only is None or name in only}


def images_of_folder(files: Sequence[Path]) -> dict[str, list[Path]]:
    """One group of images, by the name of the folder that holds them."""
    folder = os.path.commonpath([file.resolve().parent for file in files])
    return {Path(folder).name or 'site': list(files)}


class SiteImages:
    """Image files as a config's test pipeline makes them, in batches.

    Raises:
        ValueError: the config has no test pipeline, or none that can be built.
    """

    def __init__(self, cfg: Config, files: Sequence[Path]) -> None:
        if not cfg.get('test_dataloader'):
            raise ValueError(f'{cfg.filename} has no test_dataloader, whose pipeline images need')
        with errors_named(f'config {cfg.filename}'):
            self.pipeline = Compose(get_test_pipeline_cfg(cfg))
        self.files = files

    def batches(self, size: int = 1) -> Iterator[dict[str, Any]]:
        """All images, in batches as nearly equal as can be."""
        count = -(-len(self.files) // size)
        for part in np.array_split(np.arange(len(self.files)), count):
            samples = [dict(img_path=str(self.files[index]), img_id=int(index)) for index in part]
            yield pseudo_collate(list(map(self.pipeline, samples)))
