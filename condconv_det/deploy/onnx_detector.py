"""An exported file in the place of a detector, so that mmdet's test script measures it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmdet.models.utils import filter_scores_and_topk
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from .runtimes import check_runtime, open_onnx


@RUNNERS.register_module()
class OnnxRunner(Runner):
    """Tests the ONNX file that `load_from` names instead of the config's model, in ONNX Runtime.

    Raises:
        ImportError: the runtime is missing or too old; nothing is written then.
        ValueError: as `OnnxDetector`.
    """

    runtime = 'onnx'

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'OnnxRunner':
        check_runtime(cls.runtime)  # before a runner makes its folder
        cfg = cfg.copy()
        head = cfg.model.get('bbox_head', {})
        cfg.model = dict(
            type='OnnxDetector',
            file=cfg.load_from,
            test_cfg=cfg.model.get('test_cfg', {}),
            num_classes=head.get('num_classes'),
            runtime=cls.runtime,
        )
        cfg.load_from = None
        cfg.pop('data_preprocessor', None)  # which the Runner would hand to the file
        return super().from_cfg(cfg)

    def dump_config(self) -> None:
        """Nothing: the work directory has the config of the detector's training."""


@RUNNERS.register_module()
class OpenVinoRunner(OnnxRunner):
    """The same in OpenVINO."""

    runtime = 'openvino'


@MODELS.register_module()
class OnnxDetector(BaseModel):
    """Detects with a file of `tools/export.py`; where NMS is not in the file, with mmdet's.

    Args:
        file: .onnx.
        test_cfg: the head's. A file with NMS has its own, which must be the same.
        num_classes: of the config, to be compared with the file's.
        runtime: as in `open_onnx`.

    Raises:
        ValueError: the file has another number of classes, or with NMS another test_cfg; when
            called, an image is larger than the file's.
        ImportError, FileNotFoundError, ValueError: as in `open_onnx`.
    """

    def __init__(
        self,
        file: str,
        test_cfg: Mapping[str, Any],
        num_classes: int | None,
        runtime: str = 'onnx',
    ) -> None:
        super().__init__()
        opened = open_onnx(Path(file), runtime)
        self.run, self.batch, self.metadata = opened.run, opened.batch, opened.about
        if num_classes != self.metadata['num_classes']:
            raise ValueError(
                f'{file} has {self.metadata["num_classes"]} classes, the config {num_classes}'
            )
        own = self.metadata.get('test_cfg', {})  # that of older files is not known
        asked = ConfigDict(test_cfg).to_dict()  # with functions by their names, as in the file
        for key in own if self.metadata['with_nms'] else ():
            if own[key] != asked.get(key):
                raise ValueError(
                    f'{file} has NMS inside, with {key}={own[key]}; the config has '
                    f'{asked.get(key)}, which needs a file without --nms, or exported anew'
                )
        self.test_cfg = test_cfg
        # as of a detector of mmdet's inferencers; ClassCheckHook compares it with the data set's
        self.dataset_meta = {'classes': self.metadata['classes']}
        self.file = file

    def forward(
        self, inputs: list[Tensor], data_samples: list[DetDataSample], mode: str = 'predict'
    ) -> list[DetDataSample]:
        """Adds `pred_instances` to the samples of images [3, H, W], in the images' own pixels."""
        if mode != 'predict':
            raise ValueError(f'an ONNX file only predicts, got mode={mode!r}')
        images = np.stack([self._pad(image) for image in inputs])
        for sample, outputs in zip(data_samples, self._run(images)):
            sample.pred_instances = self._detections(sample, *map(torch.from_numpy, outputs))
        return data_samples

    def _pad(self, image: Tensor) -> np.ndarray:
        """An image in the upper left of one of the file's size, the rest what training pads."""
        size = self.metadata['size']
        if any(side > limit for side, limit in zip(image.shape[1:], size)):
            raise ValueError(
                f'an image of {image.shape[1]}x{image.shape[2]} does not fit the file, which was '
                f'exported with --size {size[0]}x{size[1]}'
            )
        pixel = np.array(self.metadata['pad_pixel'], np.float32)[:, None, None]
        canvas = np.broadcast_to(pixel, (3, *size)).copy()
        canvas[:, : image.shape[1], : image.shape[2]] = image.cpu().numpy()
        return canvas

    def _run(self, images: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Each image's outputs; what lacks to the file's batch is filled up and thrown away."""
        count = len(images)
        batch = self.batch or count
        images = np.concatenate([images, np.repeat(images[-1:], -count % batch, 0)])
        outputs = [
            zip(*self.run(images[start : start + batch])) for start in range(0, len(images), batch)
        ]
        return [image for call in outputs for image in call][:count]

    def _detections(
        self, sample: DetDataSample, boxes: Tensor, scores: Tensor, labels: Tensor | None = None
    ) -> InstanceData:
        """Boxes [N, 4] within a sample's image and in its own pixels, most certain first."""
        boxes = boxes.minimum(boxes.new_tensor(sample.img_shape[::-1] * 2))
        boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
        if labels is not None:
            found = InstanceData(bboxes=boxes, scores=scores, labels=labels)
            return self._without_small(found[labels >= 0])
        cfg = self.test_cfg
        levels = zip(*(part.split(self.metadata['level_sizes']) for part in (boxes, scores)))
        kept = []
        for level_boxes, level_scores in levels:
            score, label, _, box = filter_scores_and_topk(
                level_scores, cfg.get('score_thr', 0), cfg.get('nms_pre', -1), level_boxes
            )
            kept.append(InstanceData(bboxes=box, scores=score, labels=label))
        found = self._without_small(InstanceData.cat(kept))
        if len(found):
            rescored, index = batched_nms(found.bboxes, found.scores, found.labels, cfg['nms'])
            found = found[index]
            found.scores = rescored[:, -1]
        return found[: cfg['max_per_img']]

    def _without_small(self, found: InstanceData) -> InstanceData:
        least = self.test_cfg.get('min_bbox_size', -1)
        if least < 0:
            return found
        return found[(found.bboxes[:, 2:] - found.bboxes[:, :2] > least).all(1)]
