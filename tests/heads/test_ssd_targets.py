import random

import pytest
import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from ssd_heads import CHANNELS, FOCAL, SOFTMAX, TRAIN_CFG, build

from condconv_det.heads import ssd_targets

SIDE = 64
MAPS = [(4, 4), (2, 2)]
NUM_ANCHORS = 4 * 4 * 3 + 2 * 2 * 6


def scene(seed, number):
    """Images with none to seven objects, some of them twice, and the sizes they are padded to."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    objects, metas = [], []
    for _ in range(number):
        corner = torch.rand(draw.randrange(5), 2) * 40
        boxes = torch.cat((corner, corner + 4 + torch.rand_like(corner) * 36), 1).double()
        boxes = torch.cat((boxes, boxes[: draw.randrange(4)]))
        objects.append(InstanceData(bboxes=boxes, labels=torch.randint(3, (len(boxes),))))
        padded = (SIDE, draw.choice((SIDE, 33)))
        metas.append(dict(img_shape=padded, pad_shape=padded))
    return objects, metas


def maps(head, number):
    x = [torch.randn(number, c, *size).double() for c, size in zip(CHANNELS, MAPS)]
    return [[m.detach().requires_grad_() for m in kind] for kind in head.double()(x)]


def with_cfg(**kwargs):
    return ConfigDict({**TRAIN_CFG, **kwargs})


GAP = with_cfg(
    assigner=dict(TRAIN_CFG.assigner, pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.4),
    pos_weight=2.0,
)


@pytest.mark.parametrize('most_overlaps', [1, 500, ssd_targets.MOST_OVERLAPS])
@pytest.mark.parametrize('train_cfg', [TRAIN_CFG, GAP], ids=['recipe', 'gap'])
@pytest.mark.parametrize('seed', range(3))
def test_targets_equal_mmdets_to_the_last_bit(train_cfg, seed, most_overlaps, monkeypatch):
    monkeypatch.setattr(ssd_targets, 'MOST_OVERLAPS', most_overlaps)
    head = build(train_cfg=train_cfg)
    objects, metas = scene(seed, 12)
    anchors, valid = head.get_anchors(MAPS, metas, 'cpu')
    labels, weights, boxes, box_weights, avg_factor = head.get_targets(
        anchors, valid, objects, metas
    )
    found = ssd_targets.batch_targets(
        torch.cat(anchors[0]),
        torch.stack([torch.cat(flags) for flags in valid]),
        objects,
        head.num_classes,
        head.assigner,
        head.bbox_coder,
        train_cfg.pos_weight,
    )
    assert torch.equal(found.labels, torch.cat(labels, 1))
    assert torch.equal(found.label_weights.float(), torch.cat(weights, 1))
    assert torch.equal(found.boxes, torch.cat(boxes, 1).to(found.boxes))
    assert torch.equal(found.has_object, torch.cat(box_weights, 1)[..., 0] > 0)
    assert found.avg_factor == avg_factor
    assert found.has_object.any() and not all(flags[0].all() for flags in valid)


@pytest.mark.parametrize('train_cfg', [TRAIN_CFG, GAP], ids=['recipe', 'gap'])
@pytest.mark.parametrize('loss_cls', [FOCAL, SOFTMAX], ids=['focal', 'softmax'])
def test_losses_and_gradients_are_those_of_mmdets_loop(loss_cls, train_cfg):
    head = build(loss_cls=loss_cls, train_cfg=train_cfg)
    objects, metas = scene(5, 12)
    scores, offsets = maps(head, 12)
    results = []
    for loss_by_feat in (head.loss_by_feat, super(type(head), head).loss_by_feat):
        losses = loss_by_feat(scores, offsets, objects, metas)
        losses = [sum(losses[name]).sum() for name in ('loss_cls', 'loss_bbox')]
        results.append([*losses, *torch.autograd.grad(sum(losses), [*scores, *offsets])])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_batch_without_objects_is_all_background():
    head = build(loss_cls=SOFTMAX)
    objects, metas = scene(0, 2)
    losses = head.loss_by_feat(*maps(head, 2), [each[:0] for each in objects], metas)
    assert sum(losses['loss_cls']) == sum(losses['loss_bbox']) == 0


def test_an_image_without_anchors_is_named():
    head = build()
    objects, metas = scene(0, 2)
    metas = [metas[0], dict(pad_shape=(0, 0), img_shape=(0, 0))]
    with pytest.raises(ValueError, match=r'\(0, 0\)\] have no anchor'):
        head.loss_by_feat(*maps(head, 2), objects, metas)


def test_a_crowded_image_pads_no_whole_batch(monkeypatch):
    monkeypatch.setattr(ssd_targets, 'MOST_OVERLAPS', 500)
    head = build()
    objects, metas = scene(0, 8)
    objects[3] = InstanceData(bboxes=torch.rand(60, 4), labels=torch.zeros(60, dtype=torch.long))
    sizes, overlaps = [], BboxOverlaps2D.__call__

    def record(self, boxes, anchors):
        sizes.append(boxes.shape[0] * boxes.shape[1] * anchors.shape[1])
        return overlaps(self, boxes, anchors)

    monkeypatch.setattr(BboxOverlaps2D, '__call__', record)
    head.loss_by_feat(*maps(head, 8), objects, metas)
    *others, alone = sorted(sizes)
    assert alone == 60 * NUM_ANCHORS and others and max(others) <= 500


class OwnAssigner(MaxIoUAssigner):
    pass


@pytest.mark.parametrize(
    'changes',
    [
        dict(ignore_iof_thr=0.5),
        dict(gt_max_assign_all=True),
        dict(match_low_quality=False),
        dict(neg_iou_thr=(0.1, 0.4)),
        dict(gpu_assign_thr=50),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_batch_cannot_serve_goes_mmdets_way(changes, monkeypatch):
    head = build(train_cfg=with_cfg(assigner=dict(TRAIN_CFG.assigner, **changes)))
    monkeypatch.setattr(SSDHead, 'loss_by_feat', lambda *_: 'the loop')
    assert head.loss_by_feat([], [], [], []) == 'the loop'


def test_an_assigner_of_ones_own_goes_mmdets_way():
    head = build()
    assert ssd_targets.serves(head.assigner, head.sampler, head.bbox_coder)
    assert not ssd_targets.serves(OwnAssigner(0.5, 0.5), head.sampler, head.bbox_coder)
