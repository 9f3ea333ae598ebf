"""Boxes of detectors that find masks alone, such as SOLO."""

from mmdet.structures.mask import mask2bbox
from mmengine.structures import BaseDataElement


def box_masks(sample: BaseDataElement) -> None:
    """Puts the boxes around a prediction's masks in the place of boxes that are all zeros."""
    found = sample.get('pred_instances')
    if found is None or 'masks' not in found or 'bboxes' not in found:
        return
    if not found.bboxes.any():
        found.bboxes = mask2bbox(found.masks)
