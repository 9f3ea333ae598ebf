import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from condconv_det.backbones import CondConvMobileNetV1
from condconv_det.layers import CondConv2d, Router

E8 = dict(num_experts=8)


def build(**kwargs):
    model = CondConvMobileNetV1(**{'widen_factor': 0.25, 'out_indices': (0, 1, 2, 3, 4), **kwargs})
    model.init_weights()
    return model


@torch.no_grad()
def settle(model):
    """Gives every norm the statistics of random images: untrained, features fade to nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.randn(8, 3, 64, 64))
    return model.eval()


def routed_convs(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]


def test_is_registered_for_mmdet():
    assert MODELS.get('CondConvMobileNetV1') is CondConvMobileNetV1


@pytest.mark.parametrize('cond_cfg', [None, E8])
@pytest.mark.parametrize('side, sides', [(300, (150, 75, 38, 19, 10)), (97, (49, 25, 13, 7, 4))])
def test_maps_have_the_sizes_of_tensorflows_same_padding(side, sides, cond_cfg):
    outs = build(cond_cfg=cond_cfg)(torch.randn(1, 3, side, side))
    assert [tuple(out.shape[1:]) for out in outs] == [
        (channels, side, side) for channels, side in zip((16, 32, 64, 128, 256), sides)
    ]


class PlainMobileNetV1(nn.Sequential):
    """MobileNetV1 as its paper's table 1 lists it, in plain PyTorch with symmetric padding."""

    def __init__(self):
        def layer(cin, cout, kernel, stride, groups=1):
            return [
                nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
                nn.BatchNorm2d(cout),
                nn.ReLU6(),
            ]

        layers, cin = layer(3, 8, 3, 2), 8
        for cout, stride in zip(
            [16, 32, 32, 64, 64, *[128] * 6, 256, 256], [1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1]
        ):
            layers += layer(cin, cin, 3, stride, cin) + layer(cin, cout, 1, 1)
            cin = cout
        super().__init__(*layers)


@pytest.mark.parametrize('training', [False, True])
def test_static_network_equals_the_papers_table(training):
    ours, plain = settle(build(conv_cfg=None)), PlainMobileNetV1()
    tensors = ours.state_dict()
    plain.load_state_dict(dict(zip(plain.state_dict(), tensors.values())))
    x = torch.randn(2, 3, 64, 64)
    features = ours.train(training)(x)[-1]
    assert features.std() > 0.1
    torch.testing.assert_close(features, plain.train(training)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('share', ['layer', 'block', 'network'])
def test_equal_experts_at_a_half_are_the_static_network(share):
    static = settle(build())
    routed = build(cond_cfg=dict(num_experts=4, share=share)).eval()
    state = routed.state_dict()
    for name, tensor in static.state_dict().items():
        # four experts at 0.5 sum to two of them
        state[name] = tensor.expand_as(state[name]) / 2 if state[name].dim() == 5 else tensor
    routed.load_state_dict(state)
    for module in routed.modules():
        if isinstance(module, Router):
            nn.init.zeros_(module.fc.weight)
    x = torch.randn(2, 3, 64, 64)
    for mine, theirs in zip(routed(x), static(x)):
        assert theirs.std() > 0.1
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_parameter_names_are_the_static_networks_plus_routers():
    static, routed = build(), build(cond_cfg=E8)
    names = {name for name in routed.state_dict() if '.router.' not in name}
    assert names == set(static.state_dict())


@pytest.mark.parametrize('start, count', [(7, 14), (1, 26), (13, 2)])
def test_blocks_from_start_on_are_routed(start, count):
    model = build(cond_cfg=dict(E8, start=start))
    assert len(routed_convs(model)) == count


def test_default_start_is_block_seven():
    assert routed_convs(build(cond_cfg=E8))[0] == 'layer4.1.depthwise_conv.conv'


@pytest.mark.parametrize('share, count', [('layer', 14), ('block', 7), ('network', 1)])
def test_share_sets_how_many_routers_there_are(share, count):
    model = build(cond_cfg=dict(E8, share=share))
    assert sum(isinstance(module, Router) for module in model.modules()) == count


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('share', ['layer', 'block', 'network'])
def test_every_parameter_trains(share, with_cp):
    model = build(cond_cfg=dict(E8, share=share), with_cp=with_cp)
    loss = sum(out.square().mean() for out in model(torch.randn(4, 3, 64, 64)))
    loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize('share', ['layer', 'network'])
def test_recomputing_blocks_gives_the_same_gradients(share):
    kept = build(cond_cfg=dict(E8, share=share))
    recomputed = build(cond_cfg=dict(E8, share=share), with_cp=True)
    recomputed.load_state_dict(kept.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for model in (kept, recomputed):
        model(x)[-1].square().mean().backward()
    for mine, theirs in zip(kept.parameters(), recomputed.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_frozen_stages_and_norm_eval_hold_in_training():
    model = build(frozen_stages=2, norm_eval=True).train()
    frozen = {name.split('.')[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {'conv1', 'layer1', 'layer2'}
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not [p for p in build(frozen_stages=-1).parameters() if not p.requires_grad]


def test_an_image_is_routed_alone():
    model = settle(build(cond_cfg=dict(E8, share='block')))
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(model(x)[-1][1:2], model(x[1:2])[-1], rtol=1e-4, atol=1e-4)


def test_copies_after_a_forward_pass():
    model = build(cond_cfg=dict(E8, share='network'))
    model(torch.randn(2, 3, 64, 64))
    copy.deepcopy(model)


@pytest.mark.parametrize(
    'kwargs, says',
    [
        (dict(widen_factor=0.01), 'widen_factor .* got 0.01'),
        (dict(out_indices=(3, 5)), r'out_indices must be among 0 to 4, got \(3, 5\)'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=6), 'frozen_stages must be in -1 to 5, got 6'),
        (dict(cond_cfg=dict(num_experts=8, start=14)), '1 to 13, got 14'),
    ],
)
def test_bad_arguments_are_named(kwargs, says):
    with pytest.raises(ValueError, match=says):
        build(**kwargs)
