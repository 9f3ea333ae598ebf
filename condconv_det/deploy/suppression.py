"""mmdet's choice of detections, as tensor operations on a whole batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

# boxes [B, K, 4], scores [B, K], threshold -> kept [M], indices into the B * K boxes; a box that
# scores 0 takes no part
Suppress = Callable[[Tensor, Tensor, float], Tensor]


def suppress_by_image(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """One NMS for each image; the batch must be known when a program is written."""
    kept = []
    for image in range(boxes.shape[0]):
        candidates = scores[image].nonzero().squeeze(1)
        best = nms(boxes[image, candidates], scores[image, candidates], iou_threshold)
        kept.append(image * boxes.shape[1] + candidates[best])
    return torch.cat(kept)


def suppress_at_once(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """One NMS for all images, which lie below each other; its time grows with the batch squared."""
    bottom = boxes[..., 3].max() + 1
    rows = torch.arange(boxes.shape[0], device=boxes.device).to(boxes) * bottom
    placed = boxes + torch.tensor([0.0, 1.0, 0.0, 1.0]).to(boxes) * rows[:, None, None]
    candidates = scores.flatten().nonzero().squeeze(1)
    best = nms(placed.flatten(0, 1)[candidates], scores.flatten()[candidates], iou_threshold)
    return candidates[best]


def best_detections(
    boxes: Tensor,
    scores: Tensor,
    level_sizes: Sequence[int],
    size: tuple[int, int],
    test_cfg: Mapping[str, Any],
    suppress: Suppress = suppress_by_image,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's detections after non-maximum suppression, as mmdet's `BaseDenseHead` finds them.

    Args:
        boxes: [B, N, 4], x1 y1 x2 y2 in pixels, clipped to the image.
        scores: [B, N, classes].
        level_sizes: how many of the N boxes are of each level of the feature pyramid.
        size: height and width of the images.
        test_cfg: the head's: `nms_pre`, `score_thr`, `min_bbox_size`, `nms` and `max_per_img`.
        suppress: how NMS is run.

    Returns:
        boxes [B, K, 4], scores [B, K], falling, and labels [B, K]; rows without a detection have
        score 0 and label -1.
    """
    limit = test_cfg.get('nms_pre', -1)
    levels = zip(boxes.split(list(level_sizes), 1), scores.split(list(level_sizes), 1))
    top = zip(*(_top_of_level(*level, limit) for level in levels))
    boxes, scores, labels = (torch.cat(parts, 1) for parts in top)

    wanted = scores > test_cfg.get('score_thr', 0)
    if test_cfg.get('min_bbox_size', -1) >= 0:
        wanted &= (boxes[..., 2:] - boxes[..., :2] > test_cfg['min_bbox_size']).all(-1)
    flat = torch.where(wanted, scores, 0).flatten()
    placed = boxes
    if not test_cfg['nms'].get('class_agnostic'):
        # classes lie side by side, so that only boxes of one class meet
        placed = boxes + torch.tensor([1.0, 0.0, 1.0, 0.0]).to(boxes) * (
            labels[..., None] * (size[1] + 1)
        )
    kept = suppress(placed, flat.view_as(scores), test_cfg['nms']['iou_threshold'])
    scores = torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(scores)

    scores, index = scores.topk(min(test_cfg['max_per_img'], scores.shape[1]))
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    labels = labels.gather(1, index)
    return boxes, scores, torch.where(scores > 0, labels, -1)


def _top_of_level(boxes: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes and classes that score highest, at most `limit`, or all if that is not positive."""
    classes = scores.shape[-1]
    scores = scores.flatten(1)
    count = scores.shape[1]
    scores, index = scores.topk(min(limit, count) if limit > 0 else count)
    anchor = index // classes
    boxes = boxes.gather(1, anchor[..., None].expand(-1, -1, 4))
    return boxes, scores, index % classes
