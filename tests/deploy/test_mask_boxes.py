import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from condconv_det.deploy.agreement import agreement
from condconv_det.deploy.mask_boxes import box_masks

BOX = [3.0, 1.0, 7.0, 4.0]


def found(**values):
    """Two objects, the second one without a pixel."""
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1:4, 3:7] = True
    parts = dict(scores=torch.ones(2), labels=torch.arange(2), masks=masks) | values
    return DetDataSample(pred_instances=InstanceData(**parts))


def test_masks_without_boxes_get_them():
    sample = found(bboxes=torch.zeros(2, 4))
    box_masks(sample)
    assert sample.pred_instances.bboxes.tolist() == [BOX, [0.0] * 4]
    assert agreement([sample], [sample]) == 0.5


def test_what_has_boxes_or_has_none_stays():
    boxes = torch.tensor([BOX, [0.0, 0.0, 5.0, 5.0]])
    sample = found(bboxes=boxes)
    box_masks(sample)
    assert torch.equal(sample.pred_instances.bboxes, boxes)
    sample = found()
    box_masks(sample)
    assert 'bboxes' not in sample.pred_instances
    box_masks(DetDataSample())
    nothing = InstanceData(bboxes=torch.zeros(0, 4), masks=torch.zeros(0, 6, 8, dtype=torch.bool))
    box_masks(sample := DetDataSample(pred_instances=nothing))
    assert sample.pred_instances.bboxes.shape == (0, 4)
