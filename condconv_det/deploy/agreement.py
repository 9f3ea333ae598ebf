"""How far two networks, of which one stands in for the other, answer alike to the same images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors.single_stage_instance_seg import SingleStageInstanceSegmentor
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

SAME_OBJECT = 0.5  # IoU
DIGITS = 4  # of an agreement: the rest is rounding of scores


def agreement(samples: Sequence[BaseDataElement], others: Sequence[BaseDataElement]) -> float:
    """Part of two networks' predictions that is in both, by their scores.

    A detection's partner is of the same class and overlaps it by half or more; the most certain
    choose first. What a pair has in common is its lower score. The result is the sum of these over
    the mean of both networks' sums of scores: 1 if all detections are alike, 0 if none has a
    partner. A classifier's scores are paired by class. No labels are needed.

    Args:
        samples, others: of the same images, with `pred_instances` (bboxes, scores, labels) or
            `pred_score`.

    Raises:
        ValueError: the predictions are of another kind, or there are none.
    """
    common = total = 0.0
    for sample, other in zip(samples, others):
        if 'pred_instances' in sample:
            common += _common_score(sample.pred_instances, other.pred_instances)
            total += (sample.pred_instances.scores.sum() + other.pred_instances.scores.sum()).item()
        elif 'pred_score' in sample:
            common += torch.minimum(sample.pred_score, other.pred_score).sum().item()
            total += (sample.pred_score.sum() + other.pred_score.sum()).item()
        else:
            raise ValueError(
                'predictions are compared of detectors of boxes and of classifiers, got those of '
                f'a network that answers with {", ".join(sample.keys())}'
            )
    if not total:
        raise ValueError(
            f'nothing is found in any of {len(samples)} images, so that detections cannot be '
            'compared: take images that show objects, or a lower model.test_cfg.score_thr'
        )
    return round(2 * common / total, DIGITS)


def raw_maps(model: nn.Module, batch: Mapping[str, Any]) -> list[Tensor]:
    """What the head answers, before any decoding; of a two-stage detector, the first stage's.

    Where a first stage answers nothing of its own, as that of Sparse R-CNN, it is what it gets. Of
    CondInst and YOLACT, whose masks hang on what is found, it is the head of boxes.
    """
    data = model.data_preprocessor(batch, False)
    if getattr(model, 'with_rpn', False):
        features = model.extract_feat(data['inputs'])
        has_answer = type(model.rpn_head).forward is not nn.Module.forward
        return list(_tensors(model.rpn_head(features) if has_answer else features))
    if isinstance(model, SingleStageInstanceSegmentor) and model.with_bbox:
        # mode 'tensor' computes losses, for which it needs labels
        return list(_tensors(model.bbox_head(model.extract_feat(data['inputs']))))
    return list(_tensors(model(data['inputs'], data['data_samples'], mode='tensor')))


@torch.no_grad()
def outputs_error(
    model: nn.Module, other: nn.Module, batches: Iterable[Mapping[str, Any]]
) -> float:
    """How far another network's raw maps are from a model's, relative to how the model's vary.

    For each map, the root of the squared differences' sum over that of the squared deviations from
    the channels' means over all places and images; then the root mean square over the maps. A
    network that answers the same to all images has 1.
    """
    sums: list[list[Tensor | int]] = []
    for batch in batches:
        for index, maps in enumerate(zip(raw_maps(model, batch), raw_maps(other, batch))):
            own, others = (values.double().movedim(1, 0).flatten(1) for values in maps)
            found = [((own - others) ** 2).sum(), own.sum(1), (own**2).sum(1), own.shape[1]]
            if index == len(sums):
                sums.append(found)
            else:
                sums[index] = [a + b for a, b in zip(sums[index], found)]
    squares = []
    for error, total, square, count in sums:
        deviation = (square - total**2 / count).sum().clamp(min=torch.finfo(torch.double).tiny)
        squares.append(error / deviation)
    return torch.stack(squares).mean().sqrt().item()


def _common_score(found: InstanceData, others: InstanceData) -> float:
    if not len(found) or not len(others):
        return 0.0
    overlaps = bbox_overlaps(found.bboxes, others.bboxes)
    overlaps[found.labels[:, None] != others.labels] = 0
    common = 0.0
    for index in found.scores.argsort(descending=True):
        overlap, partner = overlaps[index].max(0)
        if overlap >= SAME_OBJECT:
            common += torch.minimum(found.scores[index], others.scores[partner]).item()
            overlaps[:, partner] = 0
    return common


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output.values() if isinstance(output, Mapping) else output or ():
            yield from _tensors(part)
