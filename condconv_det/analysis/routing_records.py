"""What a trained network's routers answer over a data set."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.fileio import load
from mmengine.runner import Runner
from numpy import ndarray
from rich.progress import track
from torch.utils.data import Dataset

from condconv_det.compat.data_errors import ImageError
from condconv_det.weights.fit import listing
from condconv_det.weights.trained import read_trained

from .classes import check_classes
from .configs import build_model, data_of
from .routing import Grouping, RoutingRecorder

MAX_ATTRIBUTE_VALUES = 50
BY_CLASS = 'class'  # name of the grouping that is always there


@dataclass(frozen=True)
class RoutingRecords:
    """Routing weights of N images, and what the images hold.

    Args:
        weights: [N, C, E] by layer, in the order in which the network runs them.
        images: the N files.
        groupings: by class and, if asked for, by an attribute.
        left_out: layers whose router does not answer once for each image.
    """

    weights: dict[str, ndarray]
    images: list[Path]
    groupings: list[Grouping]
    left_out: list[str]


def record_routing(
    cfg: Config, checkpoint: Path | str, group_by: str | None = None
) -> RoutingRecords:
    """Runs a config's network over its test set, as testing does.

    Args:
        cfg: of a detector of mmdet or a classifier of mmpretrain; it is not changed.
        checkpoint: of that network, trained with its routers.
        group_by: key of the images in the test set's COCO json, by whose values they are grouped
            beside their classes.

    Raises:
        ValueError: the config has no test set, the network no routed layers or none that answers
            for each image, its answers are not finite, the data set has no labels, images without
            files or other classes than head and config, or `group_by` is of no use, is 'class', or
            cannot be part of a file's name.
        ImageError: an image cannot be read.
        FileNotFoundError: the checkpoint or the test set does not exist.
        CheckpointError: the checkpoint is not of this network.
    """
    if group_by is not None:
        _check_key(group_by)
    if cfg.get('test_dataloader') is None:
        raise ValueError(f'{cfg.filename} has no test_dataloader, whose images would be routed')
    model = build_model(cfg)
    recorder = RoutingRecorder(model)
    weights, _ = read_trained(model, checkpoint)
    model.load_state_dict(weights)

    loader_cfg = cfg.test_dataloader.copy()
    loader_cfg.sampler = dict(type='DefaultSampler', shuffle=False)
    loader_cfg.pop('batch_sampler', None)
    with data_of(cfg, 'test'):
        loader = Runner.build_dataloader(loader_cfg)
    check_classes(model, loader.dataset)
    infos = [loader.dataset.get_data_info(index) for index in range(len(loader.dataset))]
    if not all('img_path' in info for info in infos):
        raise ValueError(
            f'{type(loader.dataset).__name__} of {cfg.filename} has images without a file, '
            'img_path, of which pictures would be drawn'
        )
    groupings = [_group_by_class(loader.dataset, infos)]
    if group_by is not None:
        groupings.append(group_by_attribute(loader.dataset, infos, group_by))

    model.to(get_device()).eval()
    try:
        with recorder, torch.no_grad():
            for batch in track(loader, 'Routing'):
                recorder.end_batch(len(model.test_step(batch)))
    except ImageError as error:  # a worker's comes with its traceback
        raise ImageError(str(error).strip().rpartition('ImageError: ')[2]) from error
    found = recorder.pop()
    if not found:
        raise ValueError(
            f'none of the {len(recorder.routers)} routers of {type(model).__name__} answers once '
            f'for each image: {listing(recorder.left_out)}'
        )
    for layer, weights in found.items():
        if not np.isfinite(weights).all():
            raise ValueError(
                f'{layer} answers with routing weights that are not finite numbers; has the '
                f'training of {checkpoint} diverged?'
            )
    return RoutingRecords(
        found, [Path(info['img_path']) for info in infos], groupings, sorted(recorder.left_out)
    )


def _check_key(key: str) -> None:
    if key == BY_CLASS:
        raise ValueError(
            f'images are always grouped by their {BY_CLASS}; a key of that name would take its '
            'place: name another'
        )
    if not re.fullmatch(r'[\w .-]{1,50}', key):  # it becomes part of the figures' file names
        raise ValueError(
            'a key to group images by has up to 50 letters, digits, spaces or any of "_.-", '
            f'got {key!r}'
        )


def _group_by_class(dataset: Dataset, infos: Sequence[dict]) -> Grouping:
    labels = []
    for info in infos:
        if 'instances' in info:
            labels.append([instance['bbox_label'] for instance in info['instances']])
        else:
            labels.append(np.atleast_1d(info.get('gt_label', [])).tolist())
    if not any(labels):
        raise ValueError(f'none of the {len(infos)} images of {type(dataset).__name__} has a class')
    names = dataset.metainfo.get('classes')
    if names is None:
        names = [str(label) for label in range(max(map(max, filter(None, labels))) + 1)]
    return Grouping.from_labels(BY_CLASS, names, labels)


def group_by_attribute(dataset: Dataset, infos: Sequence[dict], key: str) -> Grouping:
    """Groups a data set's images by a key that they have in its COCO json.

    Args:
        dataset: mmdet's CocoDataset.
        infos: of its images, `dataset.get_data_info`'s.
        key: its values are the groups, up to 50.

    Raises:
        ValueError: as `attribute_values`, or there are more values.
    """
    names = attribute_values(dataset, infos, key)
    values = list(dict.fromkeys(names))
    if len(values) > MAX_ATTRIBUTE_VALUES:
        raise ValueError(
            f'{key!r} has {len(values)} values in {dataset.ann_file}; at most '
            f'{MAX_ATTRIBUTE_VALUES} make groups'
        )
    return Grouping.from_labels(key, values, [[values.index(name)] for name in names])


def attribute_values(dataset: Dataset, infos: Sequence[dict], key: str) -> list[str]:
    """The values of a key that a data set's images have in its COCO json, image by image.

    Args:
        dataset, infos: as in `group_by_attribute`.

    Raises:
        ValueError: the data set is another, or an image lacks the key.
    """
    if not isinstance(dataset, CocoDataset):
        raise ValueError(
            f'images are grouped by {key!r} of a COCO json, which {type(dataset).__name__} has not'
        )
    images = {image['id']: image for image in load(dataset.ann_file)['images']}
    found = [images[info['img_id']].get(key) for info in infos]
    if None in found:
        keys = sorted({key for image in images.values() for key in image})
        raise ValueError(
            f'{found.count(None)} of the {len(found)} images of {dataset.ann_file} have no '
            f'{key!r} to group them by; the keys of its images are {", ".join(keys)}'
        )
    return [str(value) for value in found]
