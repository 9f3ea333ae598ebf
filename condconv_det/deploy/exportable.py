"""A detector of mmdet as one function of an image tensor, which is what can be exported."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead, RetinaSepBNHead, SSDHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from condconv_det.analysis.configs import type_name

from .suppression import best_detections, suppress_by_image

HEADS = (SSDHead, RetinaHead, RetinaSepBNHead)
# mmdet's DeltaXYWHBBoxCoder lets no side grow or shrink by more
MAX_LOG_RATIO = abs(math.log(16 / 1000))


class ExportableDetector(nn.Module):
    """Normalisation, backbone, neck, head and box decoding, and optionally NMS.

    Without NMS it returns all N anchors' boxes; `with_nms`, an image's best detections as mmdet
    chooses them, padded with score 0 and label -1 to K, `max_per_img` of the config.

    Args:
        model: a detector with one of `HEADS`; in eval mode afterwards, as this is.
        size: height and width of the images.
        with_nms: whether to suppress overlapping boxes.

    Shapes:
        images [B, 3, H, W], values 0 to 255, channels as the config's pipeline loads them (mmdet's
        load BGR) -> boxes [B, N, 4], x1 y1 x2 y2 in pixels, clipped to the image, and scores
        [B, N, classes]; with NMS boxes [B, K, 4], scores [B, K], falling, and labels [B, K], int64.

    Raises:
        ValueError: the detector, or NMS as its config has it, can't be exported; it says why.
    """

    suppress = staticmethod(suppress_by_image)  # a copy that is exported sets its own

    def __init__(self, model: nn.Module, size: tuple[int, int], with_nms: bool = False) -> None:
        super().__init__()
        check_exportable(model, size, with_nms)
        self.model = model
        self.eval()
        self.size = size
        self.with_nms = with_nms
        coder = model.bbox_head.bbox_coder
        with torch.no_grad():
            images = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
            cls_scores, _ = model(images, mode='tensor')
        priors = model.bbox_head.prior_generator.grid_priors(
            [level.shape[-2:] for level in cls_scores], device=images.device
        )
        self.level_sizes = [len(level) for level in priors]
        self.register_buffer('priors', torch.cat(priors))
        self.register_buffer('means', self.priors.new_tensor(coder.means))
        self.register_buffer('stds', self.priors.new_tensor(coder.stds))
        self.register_buffer('corner', self.priors.new_tensor([size[1], size[0]] * 2))

    @property
    def output_names(self) -> list[str]:
        return ['boxes', 'scores', 'labels'] if self.with_nms else ['boxes', 'scores']

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        cls_scores, bbox_preds = self.model(self._normalise(images), mode='tensor')
        head = self.model.bbox_head
        logits = _by_anchor(cls_scores, head.cls_out_channels)
        if head.use_sigmoid_cls:
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(-1)[..., :-1]  # the last class is the background
        boxes = self._decode(_by_anchor(bbox_preds, 4))
        if not self.with_nms:
            return boxes, scores
        return best_detections(
            boxes, scores, self.level_sizes, self.size, head.test_cfg, self.suppress
        )

    def _normalise(self, images: Tensor) -> Tensor:
        preprocessor = self.model.data_preprocessor
        if preprocessor._channel_conversion:
            images = images.flip(1)
        if preprocessor._enable_normalize:
            images = (images - preprocessor.mean) / preprocessor.std
        return images

    def _decode(self, deltas: Tensor) -> Tensor:
        """What mmdet's `DeltaXYWHBBoxCoder.decode` does, for any batch: [B, N, 4] to corners."""
        deltas = deltas * self.stds + self.means
        sides = self.priors[:, 2:] - self.priors[:, :2]
        centres = (self.priors[:, :2] + self.priors[:, 2:]) / 2 + sides * deltas[..., :2]
        halves = sides * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
        corners = torch.cat([centres - halves, centres + halves], -1)
        return torch.minimum(corners.clamp(min=0), self.corner)


def check_exportable(model: nn.Module, size: tuple[int, int], with_nms: bool) -> None:
    """Raises ValueError, which says why, unless `ExportableDetector` computes what mmdet does."""
    name = type(model).__name__
    head = getattr(model, 'bbox_head', None)
    if not isinstance(model, SingleStageDetector) or not isinstance(head, HEADS):
        found = f' with {type(head).__name__}' if head is not None else ''
        known = ', '.join(head.__name__ for head in HEADS)
        raise ValueError(
            f'{name}{found} cannot be exported: it takes a single-stage detector whose head is one '
            f'of {known}, for the decoding of others is not written'
        )
    coder = head.bbox_coder
    if type(coder) is not DeltaXYWHBBoxCoder or coder.add_ctr_clamp or not coder.clip_border:
        raise ValueError(
            f'{name} cannot be exported: its boxes are coded by {type(coder).__name__}, decoded '
            f'are those of DeltaXYWHBBoxCoder with clip_border=True and add_ctr_clamp=False'
        )
    if not isinstance(model.data_preprocessor, ImgDataPreprocessor):
        raise ValueError(
            f'{name} cannot be exported: how {type(model.data_preprocessor).__name__} normalises '
            f'images is not known, it takes DetDataPreprocessor'
        )
    divisor = model.data_preprocessor.pad_size_divisor
    if min(size) < 1 or any(side % divisor for side in size):
        raise ValueError(
            f'{name} pads images to multiples of {divisor} pixels, got a size of '
            f'{size[0]}x{size[1]}'
        )
    if with_nms:
        _check_nms(name, head.test_cfg or {})


def _check_nms(name: str, test_cfg: Mapping[str, Any]) -> None:
    nms = test_cfg.get('nms') or {}
    unknown = set(nms) - {'type', 'iou_threshold', 'class_agnostic'}
    if type_name(nms.get('type', 'nms')) != 'nms' or 'iou_threshold' not in nms or unknown:
        raise ValueError(
            f'NMS inside the file is plain nms with an iou_threshold, but test_cfg.nms of {name} '
            f'is {dict(nms)}: export without it'
        )
    if test_cfg.get('max_per_img', 0) < 1:
        raise ValueError(
            f'NMS inside the file keeps at least 1 detection, but test_cfg.max_per_img of {name} '
            f'is {test_cfg.get("max_per_img")}'
        )
    # mmdet measures in pixels of the original image, which the file does not know
    if test_cfg.get('min_bbox_size', -1) > 0:
        raise ValueError(
            f'NMS inside the file takes a min_bbox_size of at most 0, but test_cfg.min_bbox_size '
            f'of {name} is {test_cfg["min_bbox_size"]}: export without it'
        )


def _by_anchor(levels: list[Tensor], channels: int) -> Tensor:
    """Maps [B, A * channels, H, W] as [B, N, channels], in the order of the priors."""
    flat = [level.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, channels)) for level in levels]
    return torch.cat(flat, 1)
