import pytest
import torch
from mmengine.structures import InstanceData
from ssd_heads import CHANNELS, FOCAL, SOFTMAX, build
from torch.nn import functional as F

from condconv_det.heads import CondConvSSDHead
from condconv_det.layers import CondConv2d, Router

LOSSES = {
    'softmax': SOFTMAX,
    'focal': FOCAL,
    'sigmoid': dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
    'GHM': dict(type='mmdet.GHMC'),
}


def feature_maps(batch=2):
    return [torch.rand(batch, channels, side, side) for channels, side in zip(CHANNELS, (4, 2))]


IMAGE = dict(img_shape=(64, 64), pad_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
OBJECTS = InstanceData(
    bboxes=torch.tensor([[4.0, 4.0, 26.0, 26.0], [30.0, 20.0, 62.0, 60.0]]),
    labels=torch.tensor([0, 2]),
)


@pytest.mark.parametrize('loss_cls', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('kernel_size', [1, 3])
@pytest.mark.parametrize('cond_cfg', [None, dict(num_experts=4)])
def test_trains_and_predicts(loss_cls, kernel_size, cond_cfg):
    head = build(loss_cls=loss_cls, predictor_kernel_size=kernel_size, cond_cfg=cond_cfg)
    outs = head(feature_maps())
    losses = head.loss_by_feat(*outs, [OBJECTS, OBJECTS], [IMAGE, IMAGE])
    sum(sum(values) for values in losses.values()).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert all(conv[-1].kernel_size == (kernel_size, kernel_size) for conv in head.cls_convs)
    routed = [isinstance(conv[-1], CondConv2d) for conv in (*head.cls_convs, *head.reg_convs)]
    assert all(routed) if cond_cfg else not any(routed)

    # stock mmdet fails here: its SSDHead has no loss_cls
    results = head.predict_by_feat(*outs, batch_img_metas=[IMAGE, IMAGE])
    assert all(len(result.bboxes) == 10 and result.labels.max() < 3 for result in results)


def test_softmax_loss_is_that_of_mmdets_head():
    ours, theirs = build(loss_cls=SOFTMAX), build('mmdet.SSDHead')
    theirs.load_state_dict(ours.state_dict())
    x = feature_maps()
    losses = [
        head.loss_by_feat(*head(x), [OBJECTS, OBJECTS], [IMAGE, IMAGE]) for head in (ours, theirs)
    ]
    for name in ('loss_cls', 'loss_bbox'):
        torch.testing.assert_close(*(sum(each[name]).sum() for each in losses))


def test_focal_loss_is_the_formula_over_all_anchors():
    head = build(loss_cls=FOCAL)
    labels = torch.tensor([0, 3, 3, 2, 3])  # 3 is background
    logits = torch.randn(5, 3)
    boxes = torch.zeros(5, 4)
    loss, _ = head.loss_by_feat_single(
        logits, boxes, boxes, labels, torch.ones(5), boxes, boxes, avg_factor=2
    )
    positive = F.one_hot(labels, 4)[:, :3].bool()
    p = logits.sigmoid()
    expected = torch.where(
        positive, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
    ).sum()
    torch.testing.assert_close(loss, expected / 2)


@pytest.mark.parametrize('cond_cfg', [None, dict(num_experts=8)])
def test_focal_predictors_start_at_the_prior(cond_cfg):
    head = build(
        loss_cls=FOCAL,
        cond_cfg=cond_cfg,
        init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.01),
    )
    scores = torch.cat([score.flatten() for score in head(feature_maps(8))[0]]).sigmoid()
    assert abs(scores.mean() / 0.01 - 1) < 0.2


@pytest.mark.parametrize('init', ['paper', 'one-kernel'])
def test_weights_of_a_checkpoint_and_of_an_earlier_start_stay(init, tmp_path):
    cond_cfg = dict(num_experts=4, init=init)
    head = build(loss_cls=FOCAL, cond_cfg=cond_cfg)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    saved = {key: value.clone() for key, value in head.state_dict().items()}
    torch.save(saved, tmp_path / 'head.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    loaded = build(loss_cls=FOCAL, cond_cfg=cond_cfg, init_cfg=init_cfg)
    head.init_weights()
    for each in (loaded, head):
        torch.testing.assert_close(each.state_dict(), saved, rtol=0, atol=0)


def test_routers_start_as_any_router_whatever_initialises_the_predictors():
    init_cfg = dict(type='Normal', layer=['Conv2d', 'Linear'], std=0.01, bias=-3)
    head = build(cond_cfg=dict(num_experts=4), init_cfg=init_cfg)
    for router in (layer for layer in head.modules() if isinstance(layer, Router)):
        expected = (2 / (router.in_channels + 4)) ** 0.5  # Glorot's
        assert abs(router.fc.weight.std() / expected - 1) < 0.3
        assert not router.fc.bias.any()


@pytest.mark.parametrize(
    'kwargs, says',
    [
        (dict(predictor_kernel_size=2), 'predictor_kernel_size must be 1 or 3, got 2'),
        (dict(prior_prob=1), 'prior_prob must be between 0 and 1, got 1'),
        (dict(loss_cls=dict(type='mmdet.L1Loss')), 'loss_cls must be CrossEntropyLoss, Foc.* got'),
        (dict(loss_cls=dict(type='mmdet.QualityFocalLoss')), 'loss_cls must be CrossEntropyLoss,'),
        (dict(loss_cls=dict(FOCAL, reduction='sum')), "loss_cls.reduction must be 'mean' here"),
        (dict(loss_cls=dict(FOCAL, activated=True)), 'loss_cls.activated must be False here'),
        (dict(loss_cls=dict(SOFTMAX, loss_weight=2.0)), 'loss_cls.loss_weight must be 1 here'),
        (dict(loss_cls=dict(SOFTMAX, class_weight=[1.0] * 4)), 'class_weight must be None here'),
        (dict(loss_cls=dict(SOFTMAX, use_mask=True)), 'loss_cls.use_mask must be False here'),
        (dict(loss_cls=dict(SOFTMAX, ignore_index=1)), 'loss_cls.ignore_index must be None here'),
        (dict(cond_cfg=dict(num_experts=0)), 'num_experts must be an integer of at least 1'),
        (dict(cond_cfg=dict(num_experts=4, start=3)), r"cond_cfg has unknown keys \['start'\]"),
        (dict(cond_cfg=dict(num_experts=4, routing=dict(temp=1))), r"cond_cfg.routing.*\['temp'\]"),
    ],
)
def test_bad_arguments_are_named(kwargs, says):
    with pytest.raises(ValueError, match=says):
        build(**kwargs)


def test_a_loss_that_is_of_sigmoids_by_default_is_known_as_such():
    head = build(loss_cls=dict(type='mmdet.FocalLoss'))
    assert head.use_sigmoid_cls and head.cls_out_channels == 3


def test_keeps_the_kernel_size_that_mmdet_chooses():
    assert build().cls_convs[0][-1].kernel_size == (3, 3)
    depthwise = build(use_depthwise=True, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU6'))
    assert depthwise.cls_convs[0][-1].kernel_size == (1, 1)
    assert isinstance(depthwise, CondConvSSDHead)


def test_a_loss_of_boxes_sees_boxes_not_the_coders_offsets():
    head = build(loss_cls=FOCAL, reg_decoded_bbox=True)
    anchors = torch.tensor([[10.0, 10.0, 40.0, 50.0], [0.0, 20.0, 30.0, 90.0]])
    none = torch.zeros(2, 4)  # offsets of the anchors themselves
    labels, ones = torch.full((2,), head.num_classes), torch.ones(2)
    scores = torch.zeros(2, head.num_classes)
    _, loss = head.loss_by_feat_single(
        scores, none, anchors, labels, ones, anchors, torch.ones(2, 4), 1.0
    )
    assert loss == 0
    _, loss = head.loss_by_feat_single(
        scores, none, anchors, labels, ones, anchors + 3, torch.ones(2, 4), 1.0
    )
    torch.testing.assert_close(loss, torch.tensor(2 * 4 * 2.5))
