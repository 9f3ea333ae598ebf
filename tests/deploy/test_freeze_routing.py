"""A frozen network is the static twin, with the kernels that its routing weights mixed."""

import copy

import pytest
import torch
from mmdet.models import SemiBaseDetector
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from condconv_det.analysis import measure_cost
from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.deploy import cast_experts, fold_batch_norm, freeze_routing, mean_routing
from condconv_det.deploy.freeze_routing import kernel_spread
from condconv_det.deploy.static_config import static_config
from condconv_det.layers import CondConv2d, CondLinear, RoutedBlock, RoutedSequential, Router

E3 = dict(num_experts=3)
SIZE = (64, 96)


def fix_routers(model):
    """Makes all images' routing weights alike, but no two layers' and no two experts'."""
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.zeros_(router.fc.weight)
        nn.init.normal_(router.fc.bias)
    return model


@torch.no_grad()
def recorded(model, *batches):
    """What a model answers to the last batch, and its routing weights over all."""
    recorder = RoutingRecorder(model)
    with recorder:
        for batch in batches:
            answer = model(batch)
            recorder.end_batch(len(batch))
    return answer, recorder.pop()


def tensors(answer):
    if isinstance(answer, torch.Tensor):
        return [answer]
    return [tensor for part in answer for tensor in tensors(part)]


def assert_same(found, expected, tolerance=1e-10):
    found, expected = tensors(found), tensors(expected)
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected):
        assert theirs.dtype == torch.float64 and theirs.std() > 0
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


def assert_twin_of(frozen, twin, image):
    """Names, shapes and cost of a static network, into which the weights load."""
    twin.to(image).load_state_dict(frozen.state_dict())
    assert not any(isinstance(m, Router | CondConv2d | CondLinear) for m in frozen.modules())
    cost, twins = measure_cost(frozen, image), measure_cost(twin, image)
    assert cost == twins and cost.multiply_adds > 0
    twin.eval()  # returns nothing in mmdet's backbones
    return twin


@pytest.mark.parametrize('share', ['layer', 'block', 'network'])
@torch.no_grad()
def test_where_routing_is_constant_every_backbone_computes_what_it_did(backbone_cfg, share, settle):
    x = torch.randn(3, 3, *SIZE).double()
    model = MODELS.build(dict(backbone_cfg, cond_cfg=dict(E3, share=share)))
    settle(fix_routers(model).double(), x)
    expected, weights = recorded(model, x)
    before = copy.deepcopy(model.state_dict())
    frozen = freeze_routing(model, mean_routing(weights))
    assert_same(frozen(x), expected)
    twin = assert_twin_of(frozen, MODELS.build(backbone_cfg), x[:1])
    assert_same(twin(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_its_blocks_and_stages_return_tensors_as_the_twins_do(backbone_cfg):
    x, returned = torch.randn(2, 3, *SIZE), []
    model = MODELS.build(dict(backbone_cfg, cond_cfg=dict(E3, share='network')))
    model.eval()  # returns nothing in mmdet's backbones
    frozen = freeze_routing(model, mean_routing(recorded(model, x)[1]))
    for module in frozen.modules():
        if isinstance(module, RoutedBlock | RoutedSequential):
            module.register_forward_hook(lambda *call: returned.append(call[-1]))
    frozen(x)
    assert len(returned) > 8 and all(isinstance(y, torch.Tensor) for y in returned)


@pytest.mark.parametrize('share', ['layer', 'block'])
@torch.no_grad()
def test_an_image_frozen_to_its_own_weights_gets_its_own_maps(backbone_cfg, share, settle):
    x = torch.randn(2, 3, *SIZE).double()
    cond_cfg = dict(E3, share=share, routing=dict(activation='softmax', hidden_channels=4))
    model = MODELS.build(dict(backbone_cfg, cond_cfg=cond_cfg))
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.normal_(router.fc.weight, std=3)
    settle(model.double(), x)
    frozen = []
    for image in x.split(1):
        expected, weights = recorded(model, image)
        frozen.append(freeze_routing(model, mean_routing(weights)))
        assert_same(frozen[-1](image), expected)
    with pytest.raises(AssertionError):
        assert_same(frozen[0](x[1:]), expected, tolerance=1e-3)


@pytest.mark.parametrize(
    'kind',
    [
        'SSD',
        'SSD, routed neck',
        'RetinaNet',
        pytest.param('SSDLite', marks=pytest.mark.long),
        pytest.param('RetinaNet, SepBN', marks=pytest.mark.long),
    ],
)
@torch.no_grad()
def test_necks_and_heads_too_by_the_static_config(kind, small_cfg, small_detector):
    cfg = small_cfg(kind)
    if 'cond_cfg' not in cfg.model.bbox_head:
        cfg.model.bbox_head.cond_cfg = E3
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(small_detector(kind).state_dict(), strict=False)
    fix_routers(model).double()
    x = torch.randn(2, 3, *SIZE).double()
    expected, weights = recorded(model, x)
    frozen = freeze_routing(model, mean_routing(weights))
    assert_same(frozen(x), expected)
    static = static_config(cfg, model).model
    assert_same(assert_twin_of(frozen, MODELS.build(static), x[:1])(x), expected)


def conv(**kwargs):
    return CondConv2d(4, 6, 3, num_experts=3, **kwargs).double()


def shared_conv():
    layer = CondConv2d(4, 4, 1, num_experts=3)
    return nn.Sequential(layer, nn.ReLU(), layer)


LAYERS = {
    'alone': conv,
    'without a bias, strided': lambda: conv(bias=False, stride=2),
    'grouped, dilated': lambda: conv(groups=2, dilation=2, padding=2),
    "TensorFlow's padding at stride 2": lambda: conv(padding='same', stride=2, dilation=2),
    "'valid'": lambda: conv(padding='valid'),
    'reflected padding': lambda: conv(padding=1, padding_mode='reflect'),
    'used twice': shared_conv,
}


@pytest.mark.parametrize('build', LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_a_layer_of_any_geometry(build):
    model = fix_routers(build().double())
    x = torch.randn(2, 4, 7, 8).double()
    expected, weights = recorded(model, x)
    frozen = freeze_routing(model, mean_routing(weights))
    assert not any(isinstance(module, CondConv2d | Router) for module in frozen.modules())
    assert_same(frozen(x), expected)


@torch.no_grad()
def test_a_linear_layer():
    model = fix_routers(nn.Sequential(CondLinear(5, 7, num_experts=3)).double())
    x = torch.randn(4, 5).double()
    expected, weights = recorded(model, x)
    frozen = freeze_routing(model, mean_routing(weights))
    assert type(frozen[0]) is nn.Linear
    assert_same(frozen(x), expected)


@torch.no_grad()
def test_the_mean_of_routing_is_that_of_kernels():
    layer = conv(bias=False)
    images = [torch.randn(count, 4, 6, 6).double() for count in (1, 3, 2)]
    _, weights = recorded(layer, *images)
    frozen = freeze_routing(layer, mean_routing(weights))
    routing = torch.cat([layer.router(image) for image in images])
    kernels = torch.einsum('ne,eoihw->noihw', routing, layer.weight)
    torch.testing.assert_close(frozen.weight, kernels.mean(0))
    distances = (kernels - kernels.mean(0)).flatten(1).norm(dim=1)
    spread = distances.square().mean().sqrt() / kernels.mean(0).norm()
    assert kernel_spread(layer, weights)[''] == pytest.approx(spread.item())
    zero = {router: 0 * values for router, values in weights.items()}
    assert kernel_spread(layer, zero) == {'': 0.0}


def test_what_trains_and_the_random_numbers_to_come_stay():
    model = nn.Sequential(conv(), conv()).train()
    model[0].requires_grad_(False)
    _, weights = recorded(nn.Sequential(model[0]), torch.randn(1, 4, 6, 6).double())
    routing = {name: weights['0'].mean((0, 1)) for name in '01'}
    state = torch.get_rng_state()
    frozen = freeze_routing(model, routing)
    assert torch.equal(torch.get_rng_state(), state)
    assert frozen[0].training and not frozen[0].weight.requires_grad
    assert frozen[1].weight.requires_grad and frozen[1].bias.requires_grad


@torch.no_grad()
def test_half_experts_become_kernels_of_the_networks_own_type(settle):
    cfg = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(3,))
    x = torch.randn(2, 3, *SIZE)
    model = settle(MODELS.build(dict(cfg, cond_cfg=E3)), x)
    half = cast_experts(model, torch.bfloat16)
    _, weights = recorded(half, x)
    frozen = freeze_routing(half, mean_routing(weights))
    assert {parameter.dtype for parameter in frozen.parameters()} == {torch.float32}
    (expected,), (found,) = half(x[:0]), frozen(x[:0])
    assert found.dtype == expected.dtype == torch.float32


@torch.no_grad()
def test_batch_norms_of_a_frozen_network_fold(settle):
    cfg = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(3,))
    x = torch.randn(2, 3, *SIZE).double()
    model = settle(fix_routers(MODELS.build(dict(cfg, cond_cfg=E3))).double(), x)
    expected, weights = recorded(model, x)
    folded = fold_batch_norm(freeze_routing(model, mean_routing(weights)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert_same(folded(x), expected, tolerance=1e-8)


EVEN = torch.full((3,), 0.5)


def teacher_and_student():
    backbone = dict(type='CondConvMobileNetV1', widen_factor=0.25, cond_cfg=E3)
    head = dict(type='RetinaHead', num_classes=2, in_channels=256, stacked_convs=0)
    detector = dict(type='RetinaNet', backbone=backbone, neck=None, bbox_head=head)
    init_default_scope('mmdet')
    return SemiBaseDetector(detector, semi_train_cfg=dict(freeze_teacher=True))


@pytest.mark.parametrize(
    'build, routing, says',
    [
        (lambda: nn.Conv2d(4, 6, 3), {}, 'Conv2d has no routed layers'),
        (conv, {}, 'of the 1 routers of the model; it lacks router, and there is no other'),
        (conv, dict(router=EVEN, neck=EVEN), 'it lacks none, and there is no neck'),
        (conv, dict(router=EVEN[:2]), r'routing of router must be \[E\] = \[3\] finite weights'),
        (conv, dict(router=EVEN / 0), r'must be .* finite weights, got tensor\(\[inf'),
        (
            teacher_and_student,
            {},
            'SemiBaseDetector is a teacher and a student, and one alone answers: freeze that',
        ),
        (
            lambda: nn.Sequential(conv(), conv(routing=dict(hierarchical=True))),
            {'0': EVEN, '1': EVEN},
            'Sequential has hierarchical routers, which cannot be frozen: .* no image had: 1',
        ),
        (
            lambda: conv(padding='same', padding_mode='reflect'),
            dict(router=EVEN),
            "has padding='same' and padding_mode='reflect'",
        ),
        (
            lambda: nn.Sequential(conv(routing=None), conv()),
            {'1': EVEN},
            '0 was built with routing=None and no router is before it',
        ),
    ],
)
def test_bad_input_is_named(build, routing, says):
    with pytest.raises(ValueError, match=says):
        freeze_routing(build(), routing)


def test_regions_are_refused():
    init_default_scope('mmdet')
    head = MODELS.build(
        dict(
            type='mmdet.StandardRoIHead',
            mask_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
                out_channels=8,
                featmap_strides=[4],
            ),
            mask_head=dict(
                type='FCNMaskHead',
                num_convs=1,
                in_channels=8,
                conv_out_channels=8,
                num_classes=2,
                conv_cfg=dict(type='CondConv2d', num_experts=3),
            ),
        )
    )
    model = nn.ModuleDict(dict(neck=conv(), roi_head=head))
    says = 'routes regions of an image, which cannot .*: roi_head.mask_head.convs.0.conv$'
    with pytest.raises(ValueError, match=says):
        freeze_routing(model, {'neck': EVEN, 'roi_head.mask_head.convs.0.conv': EVEN})
