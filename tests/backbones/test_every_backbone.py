"""What holds for every backbone; the files beside this one compare each with its original."""

import copy
import math
import warnings
from inspect import Parameter, signature

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import CondConv2d, RoutedBlock, RoutedSequential, Router

E4 = dict(num_experts=4)
# The cheapest of each kind, with the out_indices that give all its maps.
ARGUMENTS = {
    'CondConvMobileNetV1': dict(widen_factor=0.25, out_indices=(0, 1, 2, 3, 4)),
    'CondConvMobileNetV2': dict(widen_factor=0.25, out_indices=(0, 1, 2, 4, 7)),
    'CondConvMobileNetV3': dict(arch='small', out_indices=(1, 3, 8, 12)),
    'CondConvMnasNet': dict(arch='a1', widen_factor=0.25, out_indices=(0, 1, 2, 4, 7)),
    'CondConvEfficientNet': dict(arch='b0', out_indices=(1, 2, 3, 4, 6)),
    'CondConvResNet': dict(depth=18, base_channels=16, norm_eval=False),
}
# Stage, or layer, that ends before the first routed block; and one with routed blocks in it.
STATIC_STAGE = {'CondConvMobileNetV3': 6, 'CondConvResNet': 2, 'CondConvMobileNetV2': 2}
ROUTED_STAGE = {'CondConvMobileNetV1': 4, 'CondConvMobileNetV3': 8, 'CondConvResNet': 4}
SHARES = ('layer', 'block', 'network')
ROUTINGS = {
    'sigmoid': {},
    'softmax': dict(activation='softmax', temperature=30.0),
    'hidden layer': dict(hidden_channels=8),
    'hierarchical': dict(hierarchical=True),
}
every_backbone = pytest.mark.parametrize('name', ARGUMENTS)


def each_with_some(arguments, cases):
    """The first backbone with every case, each other one with its share; the rest takes longer."""
    names = list(ARGUMENTS)
    return pytest.mark.parametrize(
        f'name, {arguments}',
        [
            pytest.param(
                name,
                *case,
                marks=() if name == names[0] or number % len(names) == index else pytest.mark.long,
            )
            for index, name in enumerate(names)
            for number, case in enumerate(cases)
        ],
    )


def build(name, **kwargs):
    model = MODELS.build({'type': name, **ARGUMENTS[name], **kwargs})
    model.init_weights()
    model.train()
    return model


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def routed_blocks(model):
    """Blocks with a routed layer; MobileNetV2's last convolution is one by itself."""
    blocks = [m for m in model.modules() if isinstance(m, RoutedBlock) and count(m, CondConv2d)]
    inside = sum(count(block, CondConv2d) for block in blocks)
    return len(blocks) + count(model, CondConv2d) - inside


@every_backbone
@pytest.mark.parametrize('height, width', [(64, 96), (65, 97)])
def test_maps_have_their_strides_at_odd_and_even_sizes(name, height, width):
    maps = build(name, cond_cfg=E4)(torch.randn(2, 3, height, width))
    strides = [2 ** round(math.log2(width / feature_map.shape[-1])) for feature_map in maps]
    assert strides == sorted(strides) and strides[-1] == 32
    for stride, feature_map in zip(strides, maps):
        assert feature_map.shape[-2:] == (-(-height // stride), -(-width // stride))


@every_backbone
def test_parameter_names_are_the_static_networks_plus_routers(name):
    static, routed = build(name), build(name, cond_cfg=E4)
    assert not count(static, CondConv2d) and not count(static, Router)
    assert {key for key in routed.state_dict() if '.router.' not in key} == set(static.state_dict())


@each_with_some(
    'share, routing',
    [
        ('layer', 'sigmoid'),
        ('layer', 'hierarchical'),
        ('block', 'softmax'),
        ('block', 'hidden layer'),
        ('network', 'sigmoid'),
        ('network', 'softmax'),
    ],
)
def test_static_weights_keep_their_function(name, share, routing, settle, assert_same_maps):
    x = torch.randn(2, 3, 64, 64)
    static = settle(build(name), x)
    routed = build(name, cond_cfg=dict(E4, share=share, routing=ROUTINGS[routing]))
    routed.load_state_dict(static.state_dict())
    routed.eval()
    assert_same_maps(routed(x), static(x))
    experts = [layer.weight for layer in routed.modules() if isinstance(layer, CondConv2d)]
    assert all(weight.std(0).min() > 0 for weight in experts)


@every_backbone
def test_share_sets_how_many_routers_there_are(name):
    models = {share: build(name, cond_cfg=dict(E4, share=share)) for share in SHARES}
    assert count(models['layer'], Router) == count(models['layer'], CondConv2d)
    assert count(models['block'], Router) == routed_blocks(models['block'])
    assert count(models['network'], Router) == 1


@each_with_some(
    'share, routing, with_cp',
    [
        ('layer', 'sigmoid', False),
        ('layer', 'hierarchical', True),
        ('layer', 'softmax', False),
        ('block', 'sigmoid', True),
        ('block', 'hierarchical', False),
        ('block', 'hidden layer', False),
        ('network', 'sigmoid', False),
        ('network', 'hidden layer', True),
    ],
)
def test_every_parameter_trains(name, share, routing, with_cp):
    cond_cfg = dict(E4, share=share, routing=ROUTINGS[routing])
    # zero_init_residual would stop gradients at the first step
    extra = dict(zero_init_residual=False) if name == 'CondConvResNet' else {}
    model = build(name, cond_cfg=cond_cfg, with_cp=with_cp, **extra)
    loss = sum(out.square().mean() for out in model(torch.randn(4, 3, 64, 64)))
    loss.backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]
    experts = [module for module in model.modules() if isinstance(module, CondConv2d | Router)]
    assert all(value.grad.any() for module in experts for value in module.parameters())


@every_backbone
def test_each_hierarchical_router_depends_on_the_one_before_it(name, settle):
    cond_cfg = dict(E4, share='block', routing=dict(hierarchical=True))
    x = torch.randn(2, 3, 64, 64)
    model = settle(build(name, cond_cfg=cond_cfg), x)
    routers = [module for module in model.modules() if isinstance(module, Router)]
    seen = []
    for router in routers:
        router.register_forward_hook(lambda _, given, routing: seen.append((given, routing)))
    model(x)
    assert len(seen) == len(routers) > 1
    assert seen[0][0][1] is None
    for (_, before), ((_, previous), _) in zip(seen, seen[1:]):
        assert previous is before


@pytest.mark.parametrize('share', [pytest.param('layer', marks=pytest.mark.long), 'network'])
@every_backbone
def test_recomputing_blocks_gives_the_same_gradients(name, share):
    kept = build(name, cond_cfg=dict(E4, share=share))
    recomputed = build(name, cond_cfg=dict(E4, share=share), with_cp=True)
    recomputed.load_state_dict(kept.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for model in (kept, recomputed):
        model(x)[-1].square().mean().backward()
    for mine, theirs in zip(kept.parameters(), recomputed.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@every_backbone
def test_what_comes_after_the_last_output_is_not_built(name):
    whole = set(build(name).state_dict())
    out_indices = ARGUMENTS[name].get('out_indices', (0, 1, 2, 3))[:-1]
    model = build(name, out_indices=out_indices)
    assert set(model.state_dict()) < whole
    loss = sum(out.square().mean() for out in model(torch.randn(2, 3, 64, 64)))
    loss.backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]


@every_backbone
def test_frozen_stages_and_norm_eval_hold_in_training(name):
    frozen_stages = STATIC_STAGE.get(name, 2)
    model = build(name, frozen_stages=frozen_stages, norm_eval=True, cond_cfg=E4)
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen and not any('router' in key for key in frozen)
    assert not [value for value in build(name).parameters() if not value.requires_grad]


@every_backbone
def test_train_and_eval_return_the_network(name):
    model = build(name)
    assert model.eval() is model and not model.training
    assert model.train() is model and model.training


def calls_of_blocks(model):
    """What each block and stage is handed and returns in a training step of two images."""
    calls = {}
    for name, module in model.named_modules():
        if isinstance(module, RoutedBlock | RoutedSequential):
            module.register_forward_hook(lambda _, x, y, name=name: calls.update({name: (x, y)}))
    model(torch.randn(2, 3, 64, 64, requires_grad=True))[-1].sum().backward()
    return calls


@pytest.mark.parametrize('with_cp', [False, True])
@every_backbone
def test_a_static_networks_blocks_and_stages_take_and_return_tensors(name, with_cp):
    """As mmdet's do, so that hooks written for those work."""
    calls = calls_of_blocks(build(name, with_cp=with_cp))
    assert len(calls) > 8
    for taken, returned in calls.values():
        assert len(taken) == 1 and isinstance(returned, torch.Tensor)


@every_backbone
def test_so_do_those_before_the_first_router(name):
    model = build(name, cond_cfg=dict(E4, share='network'))
    for block, (taken, returned) in calls_of_blocks(model).items():
        routed = count(model.get_submodule(block), CondConv2d) > 0
        assert isinstance(returned, tuple if routed else torch.Tensor), block
        if routed:
            assert returned[1].shape == (2, 4)
        else:
            assert len(taken) == 1


@pytest.mark.parametrize(
    'switch', [{}, dict(cond_cfg=E4), dict(conv_cfg=dict(E4, type='CondConv2d'))]
)
@every_backbone
def test_hooks_on_all_layers_are_called(name, switch):
    model, called = build(name, **switch), {}
    layers = {key: m for key, m in model.named_modules() if isinstance(m, ConvModule | nn.Conv2d)}
    for key, layer in layers.items():
        layer.register_forward_hook(lambda *call, key=key: called.update({key: call[-1]}))
    model(torch.randn(2, 3, 64, 64))
    assert called.keys() == layers.keys()
    if name == 'CondConvMobileNetV2' and 'cond_cfg' in switch:
        assert called['conv2'][1].shape == (2, 4)


@pytest.mark.parametrize('cond_cfg', [None, E4])
@every_backbone
def test_what_a_hook_puts_in_a_static_stages_place_is_used(name, cond_cfg):
    model, x = build(name, cond_cfg=cond_cfg), torch.randn(2, 3, 64, 64)
    before = model(x)[-1]
    first = next(m for m in model.modules() if isinstance(m, RoutedBlock))
    first.register_forward_hook(lambda _, taken, returned: torch.zeros_like(returned))
    assert not torch.equal(model(x)[-1], before)


@every_backbone
def test_an_image_is_routed_alone(name, settle, assert_same_maps):
    x = torch.randn(3, 3, 64, 64).double()
    model = settle(build(name, cond_cfg=dict(E4, share='block')).double(), x)
    assert_same_maps([m[1:2] for m in model(x)], model(x[1:2]))


@every_backbone
def test_copies_after_a_forward_pass(name):
    model = build(name, cond_cfg=dict(E4, share='network'))
    model(torch.randn(2, 3, 64, 64))
    copy.deepcopy(model)


@every_backbone
def test_freezing_routed_blocks_warns_that_they_never_train(name):
    with pytest.warns(UserWarning, match=f'{name}.*experts and routers never train'):
        build(name, cond_cfg=E4, frozen_stages=ROUTED_STAGE.get(name, 5))


@pytest.mark.parametrize(
    'name, layers',
    [
        ('CondConvMobileNetV2', 'conv1.conv to layer5.'),
        ('CondConvEfficientNet', 'layers.0.conv to layers.4.'),
        ('CondConvResNet', 'conv1 to layer4.1.conv2'),
    ],
)
def test_freezing_layers_that_conv_cfg_routes_warns_too(name, layers):
    conv_cfg = dict(E4, type='CondConv2d')
    says = f'{name}.*routed layers {layers}.*: their experts and routers never train'
    with pytest.warns(UserWarning, match=says):
        build(name, conv_cfg=conv_cfg, frozen_stages=ROUTED_STAGE.get(name, 5))
    with warnings.catch_warnings():
        warnings.filterwarnings('error', '.*never train')
        build(name, conv_cfg=conv_cfg)


@every_backbone
@pytest.mark.filterwarnings('ignore:.*never train')
def test_what_is_frozen_is_so_before_training_starts(name):
    """DDP and the optimizer look at it earlier."""
    frozen_stages = ROUTED_STAGE.get(name, 5)
    model = MODELS.build(dict(ARGUMENTS[name], type=name, cond_cfg=E4, frozen_stages=frozen_stages))
    before = [key for key, value in model.named_parameters() if not value.requires_grad]
    assert any('router' in key for key in before)
    model.train()
    assert before == [key for key, value in model.named_parameters() if not value.requires_grad]


@every_backbone
def test_no_warning_without_cause(name):
    with warnings.catch_warnings():
        warnings.filterwarnings('error', '.*never train')
        build(name, cond_cfg=E4, frozen_stages=STATIC_STAGE.get(name, 2))
        build(name, frozen_stages=ROUTED_STAGE.get(name, 5))


@every_backbone
@pytest.mark.parametrize(
    'kwargs, says',
    [
        (dict(out_indices=(1, 99)), r'out_indices must be .* among 0 to \d+, got \(1, 99\)'),
        (dict(out_indices=3), r'out_indices must be a tuple of stages among 0 to \d+, got 3'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=99), r'frozen_stages must be in -?\d to \d+, got 99'),
        (dict(cond_cfg=dict(num_experts=8, start=99)), r'cond_cfg.start .* 1 to \d+, got 99'),
        (dict(cond_cfg=dict(experts=8)), r"unknown keys \['experts'\]"),
    ],
)
def test_bad_arguments_are_named(name, kwargs, says):
    with pytest.raises(ValueError, match=says):
        build(name, **kwargs)


@pytest.mark.parametrize(
    'name, positions',
    [('CondConvMobileNetV2', 3), ('CondConvEfficientNet', 1), ('CondConvResNet', 1)],
)
def test_places_of_arguments_are_mmdets_or_none(name, positions):
    """What has another place in mmdet's class is given by name, never taken for something else."""
    ours, by_place = MODELS.get(name), Parameter.POSITIONAL_OR_KEYWORD
    places = [
        [each.name for each in signature(cls).parameters.values() if each.kind is by_place]
        for cls in (ours, ours.__bases__[0])
    ]
    assert places[0] == places[1][:positions]


@pytest.mark.parametrize(
    'name, kwargs, says',
    [
        ('CondConvMobileNetV1', dict(widen_factor=0.01), 'widen_factor .* got 0.01'),
        ('CondConvMobileNetV2', dict(widen_factor=0.0), 'widen_factor .* got 0.0'),
        ('CondConvMnasNet', dict(widen_factor=-1.0), 'widen_factor .* got -1.0'),
        ('CondConvMnasNet', dict(arch='a2'), r"arch must be one of \['a1', 'b1'\], got 'a2'"),
        ('CondConvMobileNetV3', dict(arch='big'), r"arch must be one of .*'large'.* got 'big'"),
        ('CondConvEfficientNet', dict(arch='b9'), r"arch must be one of .*'b7'.* got 'b9'"),
        (
            'CondConvEfficientNet',
            dict(arch='b0-8e-depth', cond_cfg=E4),
            "'b0-8e-depth' has 8 experts, got cond_cfg.num_experts=4",
        ),
        ('CondConvResNet', dict(depth=20), r'depth must be one of \[18, 34, .*\], got 20'),
    ],
)
def test_unknown_archs_and_impossible_widths_are_named(name, kwargs, says):
    with pytest.raises(ValueError, match=says):
        build(name, **kwargs)


@each_with_some(
    'of_checkpoint, of_network, says',
    [
        (dict(num_experts=4), dict(num_experts=8), 'checkpoint has 4 experts, the network 8'),
        (dict(E4, share='block'), dict(E4, share='layer'), 'router .* or `cond_cfg.share`'),
        (dict(E4, share='layer'), dict(E4, share='block'), 'router .* or `cond_cfg.share`'),
        (dict(E4, share='block'), dict(E4, share='network'), 'router .* or `cond_cfg.share`'),
        (dict(E4, share='network'), dict(E4, share='block'), 'router .* or `cond_cfg.share`'),
        (E4, None, 'checkpoint has experts here, the network has none'),
        (dict(E4, start=1), E4, 'checkpoint has experts here, the network has none'),
    ],
)
def test_a_checkpoint_of_another_cond_cfg_is_refused(
    name, of_checkpoint, of_network, says, tmp_path
):
    torch.save(build(name, cond_cfg=of_checkpoint).state_dict(), tmp_path / 'checkpoint.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'checkpoint.pth'))
    with pytest.raises(CheckpointError, match=says):
        build(name, cond_cfg=of_network, init_cfg=pretrained)


@pytest.mark.parametrize(
    'name, of_checkpoint, of_network',
    [
        ('CondConvMobileNetV1', dict(widen_factor=0.5), dict(widen_factor=0.25)),
        ('CondConvMobileNetV2', dict(widen_factor=0.5), dict(widen_factor=0.25)),
        ('CondConvMnasNet', dict(arch='b1'), dict(arch='a1')),
        ('CondConvEfficientNet', dict(arch='b2'), dict(arch='b0')),
        ('CondConvResNet', dict(depth=18, base_channels=32), dict(depth=18)),
    ],
)
def test_a_checkpoint_of_another_arch_is_refused(name, of_checkpoint, of_network, tmp_path):
    torch.save(build(name, **of_checkpoint).state_dict(), tmp_path / 'checkpoint.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'checkpoint.pth'))
    with pytest.raises(CheckpointError, match='they are of different architectures'):
        build(name, cond_cfg=E4, init_cfg=pretrained, **of_network)
