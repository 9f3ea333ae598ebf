"""What mmengine says and loads of a checkpoint for a network with a part of this package."""

import logging

import pytest
import torch
from mmdet.models import SemiBaseDetector
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.weights import SOURCES
from condconv_det.weights.files import write_checkpoint

SAME = dict(type='Conv2dAdaptivePadding')
WIDE_EPS = dict(type='BN', eps=1e-3)
NARROW_EPS = dict(type='BN', eps=1e-5)
V1 = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(4,), norm_cfg=WIDE_EPS)
TIMM_V1 = dict(V1, conv_cfg=None, norm_cfg=NARROW_EPS)
V2 = dict(type='CondConvMobileNetV2', widen_factor=0.25)
SMALL = {
    'timm efficientnet_b0': ({}, dict(conv_cfg=None, norm_cfg=NARROW_EPS)),
    'torchvision mobilenet_v3_small': (dict(norm_cfg=NARROW_EPS), dict(norm_cfg=WIDE_EPS)),
    'timm tf_mobilenetv3_small_100': ({}, dict(conv_cfg=SAME)),
    'torchvision mnasnet0_5': (
        dict(act_cfg=dict(type='ReLU6')),
        dict(act_cfg=dict(type='ReLU')),
    ),
    'timm mobilenetv2_035': (dict(norm_cfg=WIDE_EPS), dict(norm_cfg=NARROW_EPS)),
    'mmdet resnet50': (dict(style='caffe'), dict(style='pytorch')),
}


class Detector(BaseModule):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)


@pytest.fixture
def warned(caplog):
    """Lets a logger of mmengine's be heard; what it warned of."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]
    logger.removeHandler(caplog.handler)


@pytest.fixture
def converted(tmp_path):
    """A file as `convert_file` writes it, of a backbone with random weights."""

    def converted(config, recorded=None):
        file = tmp_path / 'converted.pth'
        weights = MODELS.build(config).state_dict()
        weights = {f'backbone.{key}': value for key, value in weights.items()}
        weights['head.fc.weight'] = torch.ones(2, 3)
        write_checkpoint(file, weights, dict(backbone=recorded or config))
        return file

    return converted


def load_pretrained(config, file, prefix='backbone.'):
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix=prefix)
    backbone = MODELS.build({**config, 'init_cfg': init_cfg})
    backbone.init_weights()
    return backbone


def said(message):
    """What a warning says to set in the backbone's config."""
    return Config.fromstring(message[message.index('\nmodel = ') :], '.py').model.backbone


@pytest.mark.parametrize('cond_cfg', [None, dict(num_experts=2)])
def test_weights_of_another_padding_and_eps_are_warned_of_with_what_to_set(
    converted, warned, cond_cfg
):
    file, here = converted(TIMM_V1), dict(V1, cond_cfg=cond_cfg)
    load_pretrained(here, file)
    (message,) = warned()
    assert 'converted.pth is of a network that computes something else' in message
    assert 'conv_cfg, of 5 layers: conv1.conv, layer2.0.depthwise_conv.conv' in message
    settings = said(message)
    assert settings == dict(conv_cfg=None, norm_cfg=NARROW_EPS)
    load_pretrained({**here, **settings}, file)
    assert len(warned()) == 1


@torch.no_grad()
def test_with_what_the_warning_says_the_features_are_those_of_the_weights(converted, warned):
    file = converted(TIMM_V1)
    image = torch.randn(1, 3, 64, 64)
    original = load_pretrained(TIMM_V1, file).eval()(image)[-1]
    other = load_pretrained(V1, file).eval()(image)[-1]
    assert (other - original).abs().max() > 0.1 * original.abs().max()
    mended = load_pretrained({**V1, **said(warned()[0])}, file).eval()(image)[-1]
    assert torch.equal(mended, original)


@pytest.mark.parametrize(
    'network',
    [
        pytest.param(network, marks=() if 'mobilenet' in network else pytest.mark.long)
        for network in SMALL
    ],
)
def test_other_families(network, converted, warned):
    library, arch = network.split()
    config = SOURCES[library][arch].backbone
    file = converted(config)
    change, settings = SMALL[network]
    if not change:  # our own default
        change = {key: value for key, value in config.items() if key not in settings}
        config = {'type': config['type'], 'arch': config['arch']}
    load_pretrained({**config, **change}, file)
    (message,) = warned()
    assert said(message) == settings


def test_a_whole_network_is_compared_too(converted, warned):
    load_checkpoint(Detector(V1), str(converted(TIMM_V1)), logger='current')
    assert [said(message) for message in warned() if 'converted.pth' in message] == [
        dict(conv_cfg=None, norm_cfg=NARROW_EPS)
    ]


SIGMOID, SOFTMAX = (
    dict(num_experts=4, routing=dict(activation=activation))
    for activation in ('sigmoid', 'softmax')
)


@pytest.mark.parametrize('share', ['layer', 'block'])
def test_experts_for_another_routing_are_refused(converted, share):
    file = converted(dict(V1, cond_cfg=dict(SIGMOID, share=share)))
    load_pretrained(dict(V1, cond_cfg=dict(num_experts=4, share=share)), file)
    network = dict(V1, cond_cfg=dict(SOFTMAX, share=share))
    says = 'converted.pth has experts for sigmoid routing, .* by softmax: layer4'
    with pytest.raises(CheckpointError, match=says):
        load_pretrained(network, file)
    with pytest.raises(CheckpointError, match='by softmax: backbone.layer4'):
        load_checkpoint(Detector(network), str(file))


def test_so_are_those_of_a_training_with_another_routing(converted):
    file = converted(dict(V1, cond_cfg=SOFTMAX))
    checkpoint = torch.load(file)
    trained = Config(dict(model=dict(backbone=dict(V1, cond_cfg=SOFTMAX)))).pretty_text
    torch.save(dict(checkpoint, meta=dict(cfg=trained)), file)
    load_checkpoint(Detector(dict(V1, cond_cfg=SOFTMAX)), str(file))
    with pytest.raises(
        CheckpointError, match='for softmax routing, .* by sigmoid: backbone.layer4'
    ):
        load_checkpoint(Detector(dict(V1, cond_cfg=SIGMOID)), str(file))


def semi_supervised(backbone):
    head = dict(type='RetinaHead', num_classes=2, in_channels=256, stacked_convs=0)
    detector = dict(type='RetinaNet', backbone=backbone, neck=None, bbox_head=head)
    init_default_scope('mmdet')
    return SemiBaseDetector(detector, semi_train_cfg=dict(freeze_teacher=True))


@pytest.mark.parametrize('cond_cfg', [None, SIGMOID])
def test_a_detectors_checkpoint_loads_into_student_and_teacher(converted, cond_cfg):
    file = converted(dict(V1, cond_cfg=cond_cfg))
    semi = semi_supervised(dict(V1, cond_cfg=cond_cfg))
    checkpoint = load_checkpoint(semi, str(file))
    for half in (semi.student, semi.teacher):
        for name, value in half.backbone.state_dict().items():
            assert torch.equal(value, checkpoint['state_dict'][f'backbone.{name}'])
    if cond_cfg:
        with pytest.raises(CheckpointError, match='by softmax: student.backbone.layer4'):
            load_checkpoint(semi_supervised(dict(V1, cond_cfg=SOFTMAX)), str(file))


def test_static_kernels_load_under_any_routing(converted):
    file = converted(V1)
    for cond_cfg in (SIGMOID, SOFTMAX):
        load_pretrained(dict(V1, cond_cfg=cond_cfg), file)


def test_a_synchronised_norm_stays_one(converted, warned):
    here = dict(TIMM_V1, norm_cfg=dict(type='SyncBN', eps=1e-3))
    load_pretrained(here, converted(TIMM_V1))
    assert said(warned()[0]) == dict(norm_cfg=dict(type='SyncBN', eps=1e-5))


@pytest.mark.parametrize(
    'recorded, here',
    [
        (TIMM_V1, TIMM_V1),
        (V1, dict(V1, out_indices=(3,), cond_cfg=dict(num_experts=2, share='block'))),
        # the same under other names
        (dict(V2, act_cfg=dict(type='ReLU6')), V2),
        (dict(V1, conv_cfg=SAME), dict(V1, norm_cfg=dict(type='BN', eps=1e-3, momentum=0.1))),
    ],
)
def test_the_same_computation_is_not_warned_of(converted, warned, recorded, here):
    load_pretrained(here, converted(recorded))
    assert warned() == []


@pytest.mark.parametrize('recorded', [dict(type='Unknown'), dict(TIMM_V1, more=1), 'resnet50'])
def test_a_backbone_that_cannot_be_built_is_said_to_be_uncompared(converted, warned, recorded):
    load_pretrained(V1, converted(V1, recorded))
    (message,) = warned()
    assert 'converted.pth: its backbone cannot be built, so that it was not compared' in message


def test_the_comparison_draws_no_random_numbers(converted):
    drawn = []
    for recorded in (TIMM_V1, 'nothing to compare with'):
        file = converted(TIMM_V1, recorded)
        torch.manual_seed(0)
        load_pretrained(V1, file)
        drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize('error', [CheckpointError, AssertionError])  # mmengine's is the second
def test_a_prefix_that_the_file_lacks_is_one_error(converted, error):
    with pytest.raises(
        error,
        match=r"converted.pth has nothing under the prefix 'backbon.'; "
        r'its prefixes are backbone., head.$',
    ):
        load_pretrained(V1, converted(V1), prefix='backbon.')


def test_a_prefix_of_something_else_is_named_with_those_there_are(converted):
    with pytest.raises(
        CheckpointError,
        match=r"converted.pth, prefix 'head.' of backbone., head.: nothing in the checkpoint is "
        'for CondConvMobileNetV1',
    ):
        load_pretrained(V1, converted(V1), prefix='head')


def test_a_checkpoint_that_does_not_fit_is_named(converted):
    with pytest.raises(CheckpointError, match=r'converted.pth, .* does not fit CondConvMobile'):
        load_pretrained(dict(V1, widen_factor=0.5), converted(V1))


@pytest.mark.parametrize(
    'whole, few',
    [
        (V2, dict(out_indices=(1, 2, 4))),  # its last convolution is conv2
        (dict(V1, out_indices=(4,)), dict(out_indices=(3,))),
        (dict(type='CondConvEfficientNet', arch='b0'), dict(out_indices=(3, 4, 5))),
    ],
)
@pytest.mark.parametrize('prefix', ['backbone.', None])
def test_stages_that_are_not_needed_are_left_out_without_a_warning(
    whole, few, prefix, converted, warned
):
    file, here = converted(whole), {**whole, **few}
    if prefix is None:
        state_dict = CheckpointLoader.load_checkpoint(str(file))['state_dict']
        bare = {key.removeprefix('backbone.'): value for key, value in state_dict.items()}
        torch.save(bare, file)
    load_pretrained(here, file, prefix)
    assert warned() == []


def test_what_a_training_step_would_miss_is_still_warned_of(converted, warned, tmp_path):
    detector = Detector(V2)
    detector.neck = torch.nn.Conv2d(3, 4, 1)
    load_checkpoint(detector, str(converted(V2)), logger='current')
    (message,) = warned()
    assert 'missing keys in source state_dict: neck.weight, neck.bias' in message
    assert 'unexpected key in source state_dict: head.fc.weight' in message
