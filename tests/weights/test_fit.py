"""What mmengine only warns of, for networks with a part of this package."""

import logging

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads.autoassign_head import CenterPrior
from mmdet.models.losses import EQLV2Loss
from mmdet.models.roi_heads.mask_heads import MaskPointHead
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError

V1 = dict(type='CondConvMobileNetV1', widen_factor=0.25)
V2 = dict(type='CondConvMobileNetV2', widen_factor=0.25)
SMALL = {
    'CondConvMobileNetV1': (V1, dict(out_indices=(2,))),
    'CondConvMobileNetV2': (V2, dict(out_indices=(1, 2, 4))),
    'CondConvMobileNetV3': (dict(type='CondConvMobileNetV3'), dict(out_indices=(8,))),
    'CondConvMnasNet': (
        dict(type='CondConvMnasNet', widen_factor=0.25),
        dict(out_indices=(1, 2, 4)),
    ),
    'CondConvEfficientNet': (dict(type='CondConvEfficientNet'), dict(out_indices=(3, 4, 5))),
    'CondConvResNet': (
        dict(type='CondConvResNet', depth=18, base_channels=16),
        dict(out_indices=(1, 2)),
    ),
}


class Detector(BaseModule):
    """A backbone, a neck and two predictors as mmdet's heads have them."""

    def __init__(self, backbone, num_classes=80, neck_channels=16, cond_cfg=None):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.neck = ConvModule(256, neck_channels, 1)
        self.bbox_head = BaseModule()
        self.bbox_head.num_classes = num_classes
        conv_cfg = cond_cfg and dict(type='CondConv2d', **cond_cfg)
        for name, channels in (('cls', 3 * (num_classes + 1)), ('reg', 12)):
            layer = ConvModule(16, channels, 1, conv_cfg=conv_cfg)
            self.bbox_head.add_module(name, layer)


@pytest.fixture
def load(tmp_path):
    """Loads one network's weights into another through mmengine, maybe changed on the way."""

    def load(into, source, change=lambda state_dict: None, **kwargs):
        state_dict = source.state_dict()
        change(state_dict)
        torch.save(dict(state_dict=state_dict), tmp_path / 'checkpoint.pth')
        load_checkpoint(
            into, str(tmp_path / 'checkpoint.pth'), logger=logging.getLogger(__name__), **kwargs
        )

    return load


def drop(*keys):
    def change(state_dict):
        for key in keys:
            del state_dict[key]

    return change


def add(*keys):
    return lambda state_dict: state_dict.update(dict.fromkeys(keys, torch.ones(2)))


def test_a_missing_parameter_of_the_backbone_is_an_error_and_of_the_neck_is_not(load):
    load(Detector(V1), Detector(V1), drop('neck.conv.weight'))
    with pytest.raises(CheckpointError, match='checkpoint lacks: backbone.layer3.1.depthwise_conv'):
        load(Detector(V1), Detector(V1), drop('backbone.layer3.1.depthwise_conv.conv.weight'))


def test_a_key_that_matches_nothing_of_the_backbone_is_an_error_and_of_the_neck_is_not(load):
    load(Detector(V1), Detector(V1), add('neck.more.weight', 'head.fc.weight'))
    with pytest.raises(CheckpointError, match='network has no: backbone.conv9.weight'):
        load(Detector(V1), Detector(V1), add('backbone.conv9.weight'))


def test_another_shape_is_an_error_everywhere(load):
    with pytest.raises(CheckpointError, match=r'shapes differ .*: neck.conv.bias \[16\] \[32\]'):
        load(Detector(V1, neck_channels=32), Detector(V1))
    with pytest.raises(CheckpointError, match=r'shapes differ .*: backbone.conv1.bn.bias \[16\]'):
        load(Detector(V1), Detector(dict(V1, widen_factor=0.5)))


def test_every_kind_of_error_is_listed_up_to_ten_keys():
    from condconv_det.weights.fit import check_fit

    with pytest.raises(CheckpointError) as error:
        check_fit(MODELS.build(V2), MODELS.build(dict(V1, widen_factor=0.5)).state_dict())
    lines = str(error.value).splitlines()
    assert lines[0] == 'the checkpoint does not fit CondConvMobileNetV2'
    kinds = [line.partition(':')[0].strip() for line in lines[1:]]
    assert kinds[0].startswith('shapes differ') and kinds[1:] == [
        'the checkpoint lacks',
        'the network has no',
    ]
    assert lines[2].count(',') == 9 and lines[2].endswith(' more')


def test_experts_of_another_number_are_all_listed(load):
    routed = [dict(V1, cond_cfg=dict(num_experts=experts)) for experts in (4, 8)]
    with pytest.raises(CheckpointError, match='has 4 experts, the network 8: .* and 4 more'):
        load(Detector(routed[1]), Detector(routed[0]))


def test_experts_do_not_load_into_a_static_network(load):
    with pytest.raises(CheckpointError, match='has experts here, the network has none: .*cond_cfg'):
        load(Detector(V2), Detector(dict(V2, cond_cfg=dict(num_experts=2))))


@pytest.mark.parametrize(
    'cond_cfg',
    [
        pytest.param(None, marks=pytest.mark.long),
        dict(num_experts=4),
        pytest.param(dict(num_experts=4, share='block'), marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize('name', SMALL)
def test_stages_that_no_output_needs_may_be_in_the_checkpoint(name, cond_cfg, load):
    whole, few = SMALL[name]
    cond_cfg = cond_cfg and dict(cond_cfg, start=5)
    load(MODELS.build({**whole, **few, 'cond_cfg': cond_cfg}), MODELS.build(whole))


def test_published_resnets_load_into_ones_with_plugins_and_without_a_classifier(load):
    whole, _ = SMALL['CondConvResNet']
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')
    plain, with_plugin = (
        MODELS.build(dict(whole, depth=50, **kwargs)) for kwargs in ({}, dict(plugins=[plugin]))
    )
    load(with_plugin, plain, add('fc.weight', 'fc.bias'))


def test_published_caffe_style_resnets_load_without_the_bias_of_their_stem(load, caplog):
    whole, _ = SMALL['CondConvResNet']
    caffe = MODELS.build(dict(whole, depth=50, style='caffe', cond_cfg=dict(num_experts=2)))
    load(caffe, MODELS.build(dict(whole, depth=50, style='caffe')), add('conv1.bias'))
    assert 'unexpected key in source state_dict: conv1.bias' in caplog.text
    with pytest.raises(CheckpointError, match='network has no: layer1.0.conv1.bias'):
        load(caffe, caffe, add('layer1.0.conv1.bias'))


def test_a_checkpoint_that_has_nothing_for_the_network_is_an_error(load):
    with pytest.raises(CheckpointError, match='nothing in the checkpoint is for CondConvMobileNet'):
        load(MODELS.build(V1), torch.nn.Conv2d(3, 4, 3))


def test_a_forgotten_prefix_is_named(load):
    with pytest.raises(CheckpointError, match="load it with prefix='backbone.'"):
        load(MODELS.build(V1), Detector(V1))


@pytest.mark.parametrize('cond_cfg', [None, dict(num_experts=4)])
def test_another_number_of_classes_loads_all_but_that_layer_and_says_so(load, caplog, cond_cfg):
    into, source = Detector(V1, num_classes=5, cond_cfg=cond_cfg), Detector(V1)
    before = {key: value.clone() for key, value in into.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load(into, source)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1 and warned[0].endswith('not loaded into bbox_head.cls.conv')
    after, given = into.state_dict(), source.state_dict()
    for key, value in after.items():
        if key.startswith('bbox_head.cls.'):
            assert torch.equal(value, before[key])
        elif key in given and value.shape == given[key].shape:
            assert torch.equal(value, given[key])
    if cond_cfg:
        assert after['bbox_head.reg.conv.weight'].dim() == 5


@pytest.mark.parametrize('num_classes', [80, 1])  # a multiple of 1 is any number
def test_a_box_predictor_of_another_shape_is_no_matter_of_classes(load, num_classes):
    def more_anchors(state_dict):
        for name in ('cls', 'reg'):
            for leaf in ('weight', 'bias'):
                key = f'bbox_head.{name}.conv.{leaf}'
                state_dict[key] = state_dict[key].repeat_interleave(2, 0)

    network = Detector(V1, num_classes)
    with pytest.raises(CheckpointError, match=r'bbox_head.reg.conv.weight \[24, 16'):
        load(network, network, more_anchors)


def test_boxes_of_each_class_are_a_matter_of_classes(load):
    few, many = Detector(V1, num_classes=3), Detector(V1, num_classes=6)
    for network, channels in ((few, 12), (many, 24)):
        network.bbox_head.reg = ConvModule(16, channels, 1)
        network.bbox_head.reg_class_agnostic = False  # as in Faster R-CNN
    before = few.bbox_head.reg.conv.weight.clone()
    load(few, many)
    assert torch.equal(few.bbox_head.reg.conv.weight, before)


def test_so_is_a_layer_that_predicts_boxes_and_classes_at_once(load, caplog):
    few, many = Detector(V1, num_classes=3), Detector(V1)
    for network, classes in ((few, 3), (many, 80)):
        head = dict(type='mmdet.YOLOV3Head', num_classes=classes, in_channels=(8, 8, 8))
        with DefaultScope.overwrite_default_scope('mmdet'):  # of its anchors
            network.bbox_head = MODELS.build(dict(head, out_channels=(8, 8, 8)))
    before = few.bbox_head.convs_pred[0].weight.clone()
    load(few, many)
    assert 'not loaded into bbox_head.convs_pred.0, bbox_head.convs_pred.1' in caplog.text
    assert torch.equal(few.bbox_head.convs_pred[0].weight, before)
    bridges = [network.bbox_head.convs_bridge[0].conv.weight for network in (few, many)]
    assert torch.equal(*bridges)


PARTS_OF_CLASSES = [  # of AutoAssign, of a loss and of PointRend
    (CenterPrior, {}),
    (EQLV2Loss, {}),
    (MaskPointHead, dict(num_fcs=2, in_channels=4, fc_channels=4)),
]


@pytest.mark.parametrize('kind, options', PARTS_OF_CLASSES)
def test_so_are_parts_all_of_whose_weights_depend_on_them(load, caplog, kind, options):
    few, many = Detector(V1, num_classes=3), Detector(V1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        few.part, many.part = kind(num_classes=3, **options), kind(num_classes=80, **options)
    before = {name: value.clone() for name, value in few.part.state_dict().items()}
    load(few, many)
    assert 'not loaded into bbox_head.cls.conv, part' in caplog.text
    assert all(torch.equal(few.part.state_dict()[name], before[name]) for name in before)


def test_so_is_a_layer_that_is_there_under_several_names(load, caplog):
    few, many = Detector(V1, num_classes=3), Detector(V1)
    for network in (few, many):  # as of the decoder's layers of Deformable DETR
        network.bbox_head.branches = nn.ModuleList([network.bbox_head.cls] * 2)
    load(few, many)
    assert 'bbox_head.branches.0.conv, bbox_head.branches.1.conv, bbox_head.cls' in caplog.text


def test_so_is_a_layer_with_as_many_outputs_as_its_loss_asks_for(load, caplog):
    few, many = Detector(V1, num_classes=3), Detector(V1)
    for network, classes in ((few, 3), (many, 80)):
        head = dict(type='mmdet.BBoxHead', num_classes=classes, in_channels=4, roi_feat_size=1)
        loss = dict(type='SeesawLoss', num_classes=classes)
        with DefaultScope.overwrite_default_scope('mmdet'):
            network.bbox_head = MODELS.build(dict(head, loss_cls=loss))
    load(few, many)
    assert 'not loaded into bbox_head.fc_cls, bbox_head.fc_reg, bbox_head.loss_cls' in caplog.text


def test_other_networks_keep_mmengines_behaviour(load):
    mmdets = dict(type='mmdet.MobileNetV2', widen_factor=0.25)
    load(Detector(mmdets), Detector(mmdets), drop('backbone.conv2.conv.weight'))
    load(MODELS.build(mmdets), torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError, match='missing keys'):
        load(Detector(V1), Detector(V1), drop('neck.conv.weight'), strict=True)


def test_what_the_last_stage_has_no_place_for_is_named(load):
    network = MODELS.build(dict(V1, out_indices=(2,)))

    def add(state_dict):
        state_dict['layer3.9.pointwise_conv.conv.weight'] = torch.zeros(1)

    with pytest.raises(CheckpointError, match='network has no: layer3.9.pointwise_conv'):
        load(network, network, add)
