"""Images that a network is adapted to: which they are, and what it makes of them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from numpy import ndarray
from rich.progress import track
from torch import nn

from condconv_det.analysis.configs import data_of, errors_named
from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.analysis.routing_records import attribute_values
from condconv_det.data.leaf_datasets import leaf_datasets
from condconv_det.weights.fit import listing

from .mask_boxes import box_masks


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
        ValueError: there is no such data set, it is not COCO json, an image lacks the key, or a
            value of `only` is not there.
        FileNotFoundError: the data set is not on disk.
    """
    found: dict[str, list[Path]] = {}
    for dataset, infos in _datasets(cfg, split):
        for info, name in zip(infos, attribute_values(dataset, infos, key)):
            found.setdefault(name, []).append(Path(info['img_path']))
    unknown = [value for value in only or () if value not in found]
    if unknown:
        raise ValueError(f'no image has {key} {listing(unknown)}; there are {listing(found)}')
    return {name: files for name, files in found.items() if only is None or name in only}


def images_of_split(cfg: Config, split: str = 'val', limit: int | None = None) -> list[Path]:
    """The images of a config's data set, or at most `limit` of them, evenly spaced.

    Raises:
        ValueError: there is no such data set.
        FileNotFoundError: it is not on disk.
    """
    files = [Path(info['img_path']) for _, infos in _datasets(cfg, split) for info in infos]
    return files if limit is None else files[:: -(-len(files) // limit)]


def _datasets(cfg: Config, split: str) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """The data sets of a split, each with its images' records."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no {split}_dataloader, whose images are needed')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with data_of(cfg, split):
        datasets = list(leaf_datasets(DATASETS.build(loader.dataset)))
    for dataset in datasets:
        yield dataset, [dataset.get_data_info(index) for index in range(len(dataset))]


def images_of_folder(files: Sequence[Path]) -> dict[str, list[Path]]:
    """One group of images, by the name of the folder that holds them."""
    folder = os.path.commonpath([os.path.abspath(file.parent) for file in files])
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


@torch.no_grad()
def record_routing(
    model: nn.Module, images: SiteImages, what: str
) -> tuple[list[BaseDataElement], dict[str, ndarray]]:
    """What a routed network finds in images, and its routing weights, [N, C, E] by layer.

    Args:
        what: the title of the progress bar.

    Raises:
        ValueError: a router does not answer once for each image.
    """
    recorder = RoutingRecorder(model)
    found = []
    with recorder:
        for batch in track(images.batches(), what, len(images.files)):
            found += _found(model, batch)
            recorder.end_batch(1)
    weights = recorder.pop()
    silent = recorder.routers.keys() - weights.keys()
    if silent:
        raise ValueError(
            f'{type(model).__name__} has routers that do not answer once for each image, so that '
            f'there is no mean over images: those of {listing(silent)}'
        )
    return found, weights


@torch.no_grad()
def predict(model: nn.Module, images: SiteImages) -> list[BaseDataElement]:
    """What a network finds in images, one at a time."""
    return [sample for batch in images.batches() for sample in _found(model, batch)]


def _found(model: nn.Module, batch: dict[str, Any]) -> list[BaseDataElement]:
    """A network's predictions without masks: those of a data set do not fit into memory."""
    samples = model.test_step(batch)
    for sample in samples:
        box_masks(sample)
        if 'pred_instances' in sample:
            sample.pred_instances.pop('masks', None)
    return samples
