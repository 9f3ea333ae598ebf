"""A detector from a config and a checkpoint, for one image at a time."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from condconv_det.analysis.configs import (
    errors_named,
    first_dataset,
    network_of,
    read_config,
    type_name,
)
from condconv_det.analysis.pictures import Visualizer
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import Router
from condconv_det.weights.trained import read_trained

from .images import check_colour
from .mask_boxes import box_masks

DEMO = Path('work_dirs/demo/condconv/seed0')
LOADING = 'LoadImageFromFile'


class Detector(DetInferencer):
    """mmdet's inferencer, which takes a checkpoint whole or not at all.

    Args:
        config: file of a detector.
        checkpoint: file that mmengine wrote when it trained this config.
        device: as torch names it; None for a GPU if there is one.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the checkpoint does not fit the config, or names no classes.
        ValueError: the config is not a detector's, cannot be built or asks for grey images, or the
            device is not there.
    """

    def __init__(self, config: Path, checkpoint: Path, device: str | None = None) -> None:
        cfg = read_config(config)
        scope, with_tests = cfg.get('default_scope', 'mmdet'), bool(cfg.get('test_dataloader'))
        if scope != 'mmdet' or not with_tests:
            raise ValueError(
                f'config {config} is not of a detector: expected default_scope mmdet and a '
                f'test_dataloader, got {scope} and {"one" if with_tests else "none"}'
            )
        if not Path(checkpoint).is_file():  # before the network is built
            raise FileNotFoundError(f'checkpoint {checkpoint} does not exist')
        if device is not None:
            _check_device(device)
        self._checkpoint = checkpoint
        with errors_named(f'config {config}'):
            cfg.test_dataloader.dataset = first_dataset(cfg)
            check_colour(cfg)
            cfg.model = network_of(cfg)
            for transform in cfg.test_dataloader.dataset.get('pipeline') or ():
                if type_name(transform['type']) == LOADING:  # mmdet looks for it without a module
                    transform['type'] = LOADING
            super().__init__(cfg, device=device, show_progress=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.model.dataset_meta['classes'])

    @property
    def is_routed(self) -> bool:
        return any(isinstance(module, Router) for module in self.model.modules())

    def detect(self, image: np.ndarray) -> DetDataSample:
        """What is in an image.

        Args:
            image: [H, W, 3] uint8, BGR.

        Returns:
            A sample with `pred_instances`: bboxes [N, 4] as left, top, right, bottom in pixels of
            the image, labels [N], scores [N].

        Raises:
            ValueError: the network finds no objects, as a panoptic one.
        """
        (sample,) = self(image, return_datasamples=True)['predictions']
        if 'pred_instances' not in sample:
            raise ValueError(
                f'{type(self.model).__name__} finds no objects with boxes: expected a detector, '
                f'got a network that answers with {", ".join(sample.keys())}'
            )
        box_masks(sample)
        return sample

    def draw(self, image: np.ndarray, sample: DetDataSample, score_thr: float) -> np.ndarray:
        """An image with the boxes that score above a threshold, [H, W, 3] uint8, both BGR."""
        with warnings.catch_warnings():
            # of any box that touches the image's edge
            warnings.filterwarnings('ignore', '.* is out of bounds', UserWarning)
            self.visualizer.add_datasample(
                '', image[..., ::-1], sample, draw_gt=False, pred_score_thr=score_thr
            )
        return self.visualizer.get_image()[..., ::-1]

    def objects(self, sample: DetDataSample, score_thr: float) -> list[dict[str, Any]]:
        """The detections that score above a threshold, as plain data, best first.

        Returns:
            label, its class's name; score; box: left, top, right, bottom in pixels of the image.
        """
        found = sample.pred_instances
        found = found[found.scores > score_thr].cpu()
        return [
            dict(
                label=self.classes[found.labels[index]],
                score=round(found.scores[index].item(), 4),
                box=[round(edge, 2) for edge in found.bboxes[index].tolist()],
            )
            for index in found.scores.argsort(descending=True)
        ]

    def _load_weights_to_model(self, model: nn.Module, checkpoint: None, cfg: Config) -> None:
        weights, meta = read_trained(model, self._checkpoint)
        if not (meta.get('dataset_meta') or {}).get('classes'):
            raise CheckpointError(
                f'checkpoint {self._checkpoint} does not name its classes: expected one that '
                f"MMDetection wrote, with dataset_meta['classes']"
            )
        super()._load_weights_to_model(model, dict(state_dict=weights, meta=meta), cfg)

    def _init_collate(self, cfg: Config) -> Callable:
        return pseudo_collate  # one image at a time

    def _init_visualizer(self, cfg: Config) -> Visualizer:
        # not the config's, which may log to a server, and of which a process has one
        visualizer = Visualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer


def last_checkpoint(work_dir: Path = DEMO) -> tuple[Path, Path]:
    """The config and the last checkpoint of a training, without arguments the demo's.

    Raises:
        FileNotFoundError: nothing was trained there.
    """
    configs = sorted(work_dir.glob('*.py'))
    record = work_dir / 'last_checkpoint'
    if not configs or not record.is_file():
        raise FileNotFoundError(
            f'{work_dir} holds no trained detector: name a config and a checkpoint, '
            f'or train the demo with `make demo`'
        )
    # by its name alone, for the folder may have moved
    return configs[-1], work_dir / Path(record.read_text().strip()).name


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {device!r} cannot be used: {reason}') from error
