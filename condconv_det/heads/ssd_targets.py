"""What SSD's anchors are to predict, for all images of a batch at once.

mmdet goes through the images, and through each one's boxes, in Python: of a training step of 128
images on a GPU that loop takes three quarters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# Of objects with anchors, at a time, which take some 140 MB; one crowded image pads no whole batch.
MOST_OVERLAPS = 2**22


@dataclass(frozen=True)
class Targets:
    """Of B images with A anchors each, as mmdet's `get_targets` gives them.

    Args:
        labels: [B, A], the number of classes for background.
        label_weights: [B, A], 0 for anchors that do not count.
        boxes: [B, A, 4], encoded; 0 unless the anchor has an object.
        has_object: [B, A].
        avg_factor: anchors with an object in the batch, one at least for each image.
    """

    labels: Tensor
    label_weights: Tensor
    boxes: Tensor
    has_object: Tensor
    avg_factor: Tensor


def serves(assigner: object, sampler: object, coder: object) -> bool:
    """Whether `batch_targets` does what these parts of a head do; subclasses may do otherwise."""
    return (
        type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and not (assigner.ignore_iof_thr > 0 or assigner.gt_max_assign_all)
        and assigner.match_low_quality
        and assigner.gpu_assign_thr <= 0
        and assigner.perm_repeat_gt_cfg is None
        and isinstance(assigner.neg_iou_thr, float)
        and type(sampler) is PseudoSampler
        and type(coder) is DeltaXYWHBBoxCoder
    )


def batch_targets(
    anchors: Tensor,
    valid: Tensor,
    objects: Sequence[InstanceData],
    num_classes: int,
    assigner: MaxIoUAssigner,
    coder: DeltaXYWHBBoxCoder,
    pos_weight: float,
) -> Targets:
    """The targets that `AnchorHead.get_targets` finds image by image, equal to the last bit.

    Args:
        anchors: [A, 4], x1 y1 x2 y2 in pixels.
        valid: [B, A], anchors that lie on the image.
        objects: of B images, with `bboxes` [G, 4] and `labels` [G].
        num_classes: background's label.
        assigner, coder: the head's; `serves` must hold.
        pos_weight: of anchors with an object; 1 where it is not positive.
    """
    parts = [
        _targets_of_few(anchors, valid[few], objects[few], num_classes, assigner, coder, pos_weight)
        for few in _chunks([len(each) for each in objects], len(anchors))
    ]
    labels, weights, boxes, has_object = (torch.cat(part) for part in zip(*parts))
    return Targets(labels, weights, boxes, has_object, has_object.sum(1).clamp(min=1).sum())


def _chunks(counts: Sequence[int], num_anchors: int) -> Iterator[slice]:
    """Images with so many objects each, as many at a time as have MOST_OVERLAPS."""
    start = most = 0
    for index, count in enumerate(counts):
        most = max(most, count)
        if index > start and (index + 1 - start) * most * num_anchors > MOST_OVERLAPS:
            yield slice(start, index)
            start, most = index, count
    yield slice(start, len(counts))


def _targets_of_few(
    anchors: Tensor,
    valid: Tensor,
    objects: Sequence[InstanceData],
    num_classes: int,
    assigner: MaxIoUAssigner,
    coder: DeltaXYWHBBoxCoder,
    pos_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels, weights, boxes and whether there is an object, padded to the most objects."""
    boxes = pad_sequence([get_box_tensor(each.bboxes) for each in objects], batch_first=True)
    if boxes.shape[1] == 0:
        boxes = boxes.new_zeros(len(objects), 1, 4)
    labels = pad_sequence([each.labels for each in objects], batch_first=True)
    count = torch.tensor([len(each.labels) for each in objects], device=boxes.device)
    is_object = torch.arange(boxes.shape[1], device=boxes.device) < count[:, None]

    overlaps = assigner.iou_calculator(boxes, anchors.expand(len(boxes), -1, -1))
    overlaps = overlaps.masked_fill(~(is_object[:, :, None] & valid[:, None]), -1)
    assigned = _assign(overlaps, is_object, assigner)

    has_object = valid & (assigned > 0)
    index = (assigned - 1).clamp(min=0)
    if labels.shape[1] == 0:
        labels = index.new_full((len(boxes), 1), num_classes)
    anchor_labels = labels.gather(1, index).masked_fill(~has_object, num_classes)
    weights = (valid & (assigned == 0)).to(overlaps.dtype)
    weights = weights.masked_fill(has_object, pos_weight if pos_weight > 0 else 1.0)
    own = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    of_all = anchors.expand_as(own)
    # any box that can be encoded where there is no object: its target is not read
    own = torch.where(has_object[..., None], own, of_all)
    encoded = coder.encode(of_all.flatten(0, 1), own.flatten(0, 1)).view_as(own)
    return anchor_labels, weights, encoded.masked_fill(~has_object[..., None], 0), has_object


def _assign(overlaps: Tensor, is_object: Tensor, assigner: MaxIoUAssigner) -> Tensor:
    """[B, A]: 1 + the object that each anchor is to predict; 0 for background, -1 for neither."""
    best, object_index = overlaps.max(1)
    best = best.clamp(min=0)  # of an image without objects
    assigned = torch.full_like(object_index, -1)
    assigned = assigned.masked_fill(best < assigner.neg_iou_thr, 0)
    assigned = torch.where(best >= assigner.pos_iou_thr, object_index + 1, assigned)
    # every object gets the anchor that fits it best; one that fits two, the later of them
    best, anchor_index = overlaps.max(2)
    number = torch.arange(1, overlaps.shape[1] + 1, device=overlaps.device)
    number = number * (is_object & (best >= assigner.min_pos_iou))
    later = torch.zeros_like(assigned).scatter_reduce(1, anchor_index, number, 'amax')
    return torch.where(later > 0, later, assigned)
