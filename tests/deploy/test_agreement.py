"""How far two networks answer alike, on predictions and maps made by hand."""

import pytest
import torch
from mmdet.models.dense_heads import EmbeddingRPNHead
from mmdet.models.detectors.single_stage_instance_seg import SingleStageInstanceSegmentor
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import nn

from condconv_det.deploy.agreement import agreement, outputs_error, raw_maps

BOX = [10.0, 10.0, 20.0, 20.0]


def found(*detections):
    """An image's detections, each (box moved right by pixels, score, label)."""
    boxes = [[BOX[0] + shift, BOX[1], BOX[2] + shift, BOX[3]] for shift, _, _ in detections]
    return DetDataSample(
        pred_instances=InstanceData(
            bboxes=torch.tensor(boxes).view(-1, 4),
            scores=torch.tensor([score for _, score, _ in detections]),
            labels=torch.tensor([label for *_, label in detections], dtype=torch.long),
        )
    )


@pytest.mark.parametrize(
    'ours, theirs, expected',
    [
        ([(0, 0.8, 1)], [(0, 0.8, 1)], 1),
        ([(0, 0.8, 1)], [(3, 0.4, 1)], 0.4 / 0.6),  # overlaps by 7 / 13
        ([(0, 0.8, 1)], [(4, 0.8, 1)], 0),  # by 6 / 14
        ([(0, 0.8, 1)], [(0, 0.8, 2)], 0),
        ([(0, 0.8, 1)], [], 0),
        ([(0, 0.9, 1), (1, 0.5, 1)], [(0, 0.9, 1)], 0.9 / 1.15),  # one partner each
        ([(1, 0.5, 1), (0, 0.9, 1)], [(1, 0.5, 1), (0, 0.9, 1)], 1),
        ([(0, 0.6, 1), (40, 0.2, 3)], [(40, 0.2, 3), (0, 0.6, 1)], 1),
    ],
)
def test_detections_that_have_a_partner_count_by_their_scores(ours, theirs, expected):
    assert agreement([found(*ours)], [found(*theirs)]) == pytest.approx(expected, abs=1e-4)
    assert agreement([found(*theirs)], [found(*ours)]) == pytest.approx(expected, abs=1e-4)


def test_images_count_by_their_detections_and_stay_apart():
    two, one = found((0, 0.9, 1), (40, 0.9, 1)), found((0, 0.9, 1))
    assert agreement([two, one], [two, found()]) == pytest.approx(3.6 / 4.5, abs=1e-4)
    assert agreement([one, found()], [found(), one]) == 0


def test_images_in_which_nothing_is_found_agree_by_no_figure():
    with pytest.raises(ValueError, match='nothing is found in any of 2 images'):
        agreement([found(), found()], [found(), found()])


def test_all_alike_is_1_however_scores_are_rounded():
    scores = torch.rand(100, 7)
    images = [found(*((30 * i, score, 1) for i, score in enumerate(row))) for row in scores]
    rounded = [found(*((30 * i, score, 1) for i, score in enumerate(row))) for row in scores - 1e-7]
    assert agreement(images, images) == agreement(images, rounded) == 1


def test_predictions_stay_as_they_are():
    sample = found((0, 0.9, 1), (1, 0.5, 2))
    before = sample.pred_instances.bboxes.clone()
    agreement([sample], [sample])
    assert torch.equal(sample.pred_instances.bboxes, before)


def test_classifiers_agree_by_what_their_scores_share():
    first, second = (DataSample() for _ in range(2))
    first.set_pred_score(torch.tensor([0.7, 0.2, 0.1]))
    second.set_pred_score(torch.tensor([0.5, 0.5, 0.0]))
    assert agreement([first], [second]) == pytest.approx(0.7)


def test_other_predictions_are_refused():
    with pytest.raises(ValueError, match='of boxes and of classifiers, .* answers with gt_label'):
        agreement([DataSample().set_gt_label(1)], [DataSample().set_gt_label(1)])


class Head(nn.Module):
    """Two maps of an image, of which the first can be off."""

    def __init__(self, off=0.0):
        super().__init__()
        self.off = off

    def data_preprocessor(self, batch, training):
        return dict(batch, data_samples=None)

    def forward(self, inputs, data_samples, mode):
        return [inputs + self.off], dict(second=inputs[:, :1] * 5 + 100)


def test_an_error_is_relative_to_how_a_map_varies_about_its_channels_means():
    images = torch.randn(5, 2, 6, 7) + torch.tensor([0.0, 30.0]).view(2, 1, 1)
    batches = [dict(inputs=images[:2]), dict(inputs=images[2:])]
    deviation = images.var((0, 2, 3), correction=0).mean().sqrt()
    expected = (0.5 / deviation) / 2**0.5  # over two maps, of which one is the same
    assert outputs_error(Head(), Head(0.5), batches) == pytest.approx(expected.item(), rel=1e-4)
    assert outputs_error(Head(), Head(), batches) == 0


def test_of_a_first_stage_that_answers_nothing_what_it_gets_counts():
    class TwoStages(nn.Module):
        with_rpn = True
        data_preprocessor = staticmethod(lambda batch, training: dict(inputs=batch))
        rpn_head = EmbeddingRPNHead(num_proposals=2, proposal_feature_channel=4)
        extract_feat = staticmethod(lambda images: (images, 2 * images))

    maps = raw_maps(TwoStages(), torch.ones(1, 1))
    assert [level.item() for level in maps] == [1, 2]


def test_of_a_detector_whose_masks_hang_on_what_is_found_the_boxes_count():
    class CondInst(SingleStageInstanceSegmentor):
        def __init__(self):
            nn.Module.__init__(self)
            self.bbox_head, self.mask_head = nn.Identity(), nn.Identity()
            self.data_preprocessor = lambda batch, training: dict(inputs=batch)

        def extract_feat(self, images):
            return images, 2 * images

    maps = raw_maps(CondInst(), torch.ones(1, 1))
    assert [level.item() for level in maps] == [1, 2]
