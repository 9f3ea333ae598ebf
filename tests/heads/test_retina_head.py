import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from condconv_det.layers import CondConv2d, Router

E8 = dict(num_experts=8)
TRAIN_CFG = ConfigDict(
    assigner=dict(
        type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
        ignore_iof_thr=-1,
    ),
    sampler=dict(type='mmdet.PseudoSampler'),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)  # fmt: skip
SIDES = (16, 8, 4)
HEADS = {
    'CondConvRetinaHead': {},
    'CondConvRetinaSepBNHead': dict(num_ins=len(SIDES), norm_cfg=dict(type='BN')),
}
both_heads = pytest.mark.parametrize('name', HEADS)


def build(name, **kwargs):
    head = MODELS.build(
        {
            'type': name,
            'num_classes': 3,
            'in_channels': 16,
            'feat_channels': 16,
            'stacked_convs': 2,
            'anchor_generator': dict(
                type='mmdet.AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32],
            ),
            'bbox_coder': dict(type='mmdet.DeltaXYWHBBoxCoder'),
            'loss_cls': dict(type='mmdet.FocalLoss', use_sigmoid=True),
            'loss_bbox': dict(type='mmdet.L1Loss'),
            'train_cfg': TRAIN_CFG,
            **HEADS[name],
            **kwargs,
        }
    )
    head.init_weights()
    return head


def feature_maps(batch=2):
    return [torch.randn(batch, 16, side, side) for side in SIDES]


def routed(head):
    return {name for name, layer in head.named_modules() if isinstance(layer, CondConv2d)}


PREDICTORS = {'retina_cls', 'retina_reg'}


@both_heads
def test_without_cond_cfg_it_is_mmdets(name):
    head = build(name)
    theirs = build(name)
    theirs.__class__ = theirs.__class__.__bases__[1]
    theirs.load_state_dict(head.state_dict())
    maps = feature_maps()
    for mine, his in zip(head(maps), theirs(maps)):
        for one, other in zip(mine, his):
            torch.testing.assert_close(one, other)
    assert not routed(head)


@both_heads
def test_parts_say_what_is_routed(name):
    assert routed(build(name, cond_cfg=dict(E8, parts=('predictors',)))) == PREDICTORS
    towers = routed(build(name, cond_cfg=dict(E8, parts=('towers',))))
    assert len(towers) == 4 and all('_convs.' in layer for layer in towers)
    assert routed(build(name, cond_cfg=E8)) == towers | PREDICTORS


@both_heads
def test_parameter_names_are_mmdets_plus_routers(name):
    names = {key for key in build(name, cond_cfg=E8).state_dict() if '.router.' not in key}
    assert names == set(build(name).state_dict())


@both_heads
def test_levels_share_the_routed_towers(name):
    head = build(name, cond_cfg=E8)
    seen = []
    for module in head.modules():
        if isinstance(module, Router):
            module.register_forward_hook(lambda *_: seen.append(1))
    head(feature_maps())
    routers = sum(isinstance(module, Router) for module in head.modules())
    assert routers == 6 and len(seen) == 6 * len(SIDES)


@both_heads
@pytest.mark.parametrize('parts', [('predictors',), ('towers', 'predictors')])
def test_starts_at_the_prior_probability(name, parts):
    head = build(name, cond_cfg=dict(E8, parts=parts)).eval()
    scores = torch.cat([cls_score.flatten() for cls_score in head(feature_maps(8))[0]])
    assert abs(scores.sigmoid().mean() / 0.01 - 1) < 0.2


@both_heads
def test_every_parameter_trains(name):
    head = build(name, cond_cfg=E8)
    boxes = InstanceData(bboxes=torch.tensor([[10.0, 10, 70, 60]]), labels=torch.tensor([1]))
    meta = dict(img_shape=(128, 128), pad_shape=(128, 128))
    losses = head.loss_by_feat(*head(feature_maps(1)), [boxes], [meta])
    sum(sum(value) for value in losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    experts = [module for module in head.modules() if isinstance(module, CondConv2d | Router)]
    assert all(parameter.grad.any() for module in experts for parameter in module.parameters())


@both_heads
@pytest.mark.parametrize(
    'kwargs, says',
    [
        (dict(cond_cfg=dict(E8, parts=('neck',))), r"parts must be among .* got \('neck',\)"),
        (dict(cond_cfg=dict(E8, parts=())), 'parts must be among'),
        (dict(cond_cfg=dict(num_experts=0)), 'num_experts must be .* got 0'),
        (dict(cond_cfg=dict(E8, start=3)), r"unknown keys \['start'\]"),
        (dict(cond_cfg=E8, conv_cfg=dict(type='Conv2d')), 'conv_cfg must be None, got'),
    ],
)
def test_bad_arguments_are_named(name, kwargs, says):
    with pytest.raises(ValueError, match=says):
        build(name, **kwargs)


def routing_weights(head):
    routers = [module for module in head.modules() if isinstance(module, Router)]
    return torch.stack([router(torch.randn(4, router.in_channels, 5, 5)) for router in routers])


@both_heads
def test_routers_start_near_a_half(name):
    assert (routing_weights(build(name, cond_cfg=E8)) - 0.5).abs().mean() < 0.2


def randomised(head):
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head, {key: value.clone() for key, value in head.state_dict().items()}


@both_heads
def test_a_second_start_changes_nothing(name):
    head, before = randomised(build(name, cond_cfg=E8))
    head.init_weights()
    torch.testing.assert_close(head.state_dict(), before, rtol=0, atol=0)


def test_weights_of_a_checkpoint_stay(tmp_path):
    _, saved = randomised(build('CondConvRetinaHead', cond_cfg=E8))
    torch.save(saved, tmp_path / 'head.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    loaded = build('CondConvRetinaHead', cond_cfg=E8, init_cfg=init_cfg)
    torch.testing.assert_close(loaded.state_dict(), saved, rtol=0, atol=0)


@both_heads
def test_a_head_that_starts_by_itself_has_one_kernel_where_asked_for(name):
    head = build(name, cond_cfg=dict(E8, init='one-kernel'))
    for layer in head.modules():
        if isinstance(layer, CondConv2d):
            away = layer.weight - layer.weight.mean(0)
            assert away.std() < 0.3 * (0.5 * layer.weight.sum(0)).std()
