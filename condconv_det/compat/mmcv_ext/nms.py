"""Non-maximum suppression by mmcv's names; follows mmcv 2.1.0's ops/csrc/pytorch/cpu/nms.cpp."""

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import widened

NAIVE, LINEAR, GAUSSIAN = range(3)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that no better box overlaps by more than a threshold.

    Args:
        boxes: [N, 4], x1, y1, x2, y2 in pixels.
        scores: [N].
        iou_threshold: intersection over union above which the lower score goes.
        offset: 0, or 1 where a box from pixel 3 to pixel 3 is one pixel wide.

    Returns:
        int64 [K], by falling score.
    """
    boxes, scores = widened(boxes, scores)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # mmcv compares in float32: an overlap of 3/10 does not exceed a threshold of 0.3 there, while
    # float32's 3/10 exceeds the double 0.3, which torchvision compares with.
    return torch.ops.torchvision.nms(boxes, scores, float(np.float32(iou_threshold)))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that a better box overlaps (arXiv 1704.04503).

    Args:
        boxes: [N, 4], x1, y1, x2, y2 in pixels.
        scores: [N].
        dets: [N, 5], filled with the K kept boxes and their new scores, by falling score.
        iou_threshold: overlap from which `NAIVE` drops and `LINEAR` lowers.
        sigma: of the `GAUSSIAN` method's weight exp(-iou^2 / sigma).
        min_score: boxes below it are dropped.
        method: `NAIVE`, `LINEAR` or `GAUSSIAN`.
        offset: as in `nms`.

    Returns:
        int64 [K] on the CPU, the kept boxes' indices in the order of `dets`.
    """
    boxes, scores = widened(boxes.detach().cpu(), scores.detach().cpu())
    # One step per box on ever shorter arrays: NumPy's calls cost a fraction of PyTorch's here.
    corners = boxes.numpy().T.copy()  # [4, N]
    score = scores.numpy().copy()
    index = np.arange(len(score))
    area = _area(corners, offset)
    as_float = score.dtype.type
    iou_threshold, sigma, min_score = map(as_float, (iou_threshold, sigma, min_score))

    best, count = 0, len(score)
    while best < count:
        chosen = best + _argmax(score[best:count])
        for values in (corners.T, score, area, index):
            values[[best, chosen]] = values[[chosen, best]]
        rest = slice(best + 1, count)
        iou = _iou(corners[:, best], area[best], corners[:, rest], area[rest], offset)
        if method == GAUSSIAN:
            score[rest] *= np.exp(-(iou * iou) / sigma)
        else:
            lowered = 1 - iou if method == LINEAR else as_float(0)
            score[rest] *= np.where(iou >= iou_threshold, lowered, as_float(1))
        order = _fill_gaps_from_the_end(~(score[rest] < min_score)) + best + 1
        count = best + 1 + len(order)
        for values in (corners.T, score, area, index):
            values[best + 1 : count] = values[order]
        best += 1

    kept = np.concatenate((corners[:, :count], score[None, :count])).T
    dets[:count].copy_(torch.from_numpy(kept.copy()))
    return torch.from_numpy(index[:count].copy())


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of each box that `nms` would keep and the boxes that it suppresses.

    Args:
        dets: [N, 5], x1, y1, x2, y2 in pixels, score.
        iou_threshold: overlap from which a box is suppressed.

    Returns:
        One list of indices per group, the kept box first, by falling score.
    """
    (dets,) = widened(dets.detach().cpu())
    remaining = dets[:, 4].sort(descending=True).indices.numpy()
    corners = dets[:, :4].numpy().T  # [4, N]
    area = _area(corners, offset=0)
    groups = []
    while len(remaining):
        kept, rest = remaining[0], remaining[1:]
        iou = _iou(corners[:, kept], area[kept], corners[:, rest], area[rest], offset=0)
        matched = iou >= np.float32(iou_threshold)
        groups.append([int(kept), *rest[matched].tolist()])
        remaining = rest[~matched]
    return groups


def _area(corners: np.ndarray, offset: int) -> np.ndarray:
    """Areas [N] of corners [4, N]."""
    x1, y1, x2, y2 = corners
    return (x2 - x1 + offset) * (y2 - y1 + offset)


def _iou(
    box: np.ndarray, box_area: np.floating, corners: np.ndarray, area: np.ndarray, offset: int
) -> np.ndarray:
    """Intersection over union [N] of one box [4] with corners [4, N]; NaN for two empty boxes."""
    x1, y1 = np.maximum(box[:2, None], corners[:2])
    x2, y2 = np.minimum(box[2:, None], corners[2:])
    intersection = np.maximum(x2 - x1 + offset, 0) * np.maximum(y2 - y1 + offset, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        return intersection / (box_area + area - intersection)


def _argmax(score: np.ndarray) -> int:
    """Position of the first greatest score, passing over NaN unless it stands first, as mmcv does.

    The Gaussian method gives NaN scores to the copies of a box without area.
    """
    best = int(score.argmax())
    if np.isnan(score[best]):
        return 0 if np.isnan(score[0]) else int(np.nanargmax(score))
    return best


def _fill_gaps_from_the_end(keep: np.ndarray) -> np.ndarray:
    """Positions of the kept entries when each dropped one is replaced by the last one left.

    mmcv drops boxes so, and the order decides which of two equal scores is chosen first.
    """
    count = np.count_nonzero(keep)
    order = np.arange(count)
    order[~keep[:count]] = (np.flatnonzero(keep[count:]) + count)[::-1]
    return order
