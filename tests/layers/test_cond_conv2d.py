import copy

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer, fuse_conv_bn
from mmengine.model import BaseModule
from torch import nn
from torch.nn import functional as F

from condconv_det import CondConv2d, cond_conv2d
from condconv_det.layers import CondLinear, expert_fans
from condconv_det.layers.expert_fans import has_expert_axis


def test_mixes_by_its_own_router():
    layer = CondConv2d(6, 8, 3, padding=1, num_experts=4)
    x = torch.randn(3, 6, 7, 7)
    expected = cond_conv2d(x, layer.router(x), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_takes_routing_weights_from_outside():
    layer = CondConv2d(6, 8, 1, num_experts=4, routing=None)
    x, routing = torch.randn(3, 6, 7, 7), torch.rand(3, 4)
    torch.testing.assert_close(layer(x, routing), cond_conv2d(x, routing, layer.weight, layer.bias))
    assert not any('router' in name for name, _ in layer.named_parameters())


def test_without_router_it_asks_for_routing_weights():
    layer = CondConv2d(6, 8, 1, num_experts=4, routing=None)
    with pytest.raises(ValueError, match=r'built with routing=None.*call it with routing weights'):
        layer(torch.randn(3, 6, 7, 7))


def test_a_bad_activation_and_one_beside_a_router_of_its_own_are_named():
    with pytest.raises(ValueError, match="activation must be one of .* got 'tanh'"):
        CondConv2d(6, 8, 1, num_experts=4, routing=None, activation='tanh')
    for routing in ({}, dict(activation='sigmoid')):
        with pytest.raises(ValueError, match=r"write routing=dict\(activation='softmax'"):
            CondConv2d(6, 8, 1, num_experts=4, routing=routing, activation='softmax')


@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect', 'replicate', 'circular'])
@pytest.mark.parametrize('padding', [1, (1, 2), 'same', 'valid'])
def test_pads_as_a_plain_convolution_does(padding, padding_mode):
    plain = nn.Conv2d(4, 5, 3, padding=padding, padding_mode=padding_mode)
    routed = CondConv2d(
        4, 5, 3, padding=padding, padding_mode=padding_mode, num_experts=2, routing=None
    )
    routed.weight.data = plain.weight.data.expand_as(routed.weight).clone()
    routed.bias.data = plain.bias.data
    x = torch.randn(2, 4, 6, 6)
    halves = torch.full((2, 2), 0.5)
    torch.testing.assert_close(routed(x, halves), plain(x), rtol=1e-4, atol=1e-5)


def test_same_padding_works_at_stride_two():
    assert CondConv2d(4, 5, 3, 2, 'same', num_experts=2)(torch.randn(2, 4, 7, 8)).shape[2:] == (
        4,
        4,
    )


@pytest.mark.parametrize('num_experts', [0, -1, 2.0, '4', None, True])
def test_bad_num_experts_is_named(num_experts):
    with pytest.raises(ValueError, match='num_experts must be an integer of at least 1'):
        CondConv2d(4, 4, 1, num_experts=num_experts)


def test_bad_padding_is_named():
    with pytest.raises(ValueError, match="padding must be .* got 'full'"):
        CondConv2d(4, 4, 3, padding='full', num_experts=2)


def test_conv_cfg_reaches_it():
    conv = build_conv_layer(dict(type='CondConv2d', num_experts=4), 8, 16, 3, padding=1, bias=False)
    assert isinstance(conv, CondConv2d) and conv.weight.shape == (4, 16, 8, 3, 3)
    module = ConvModule(
        8, 16, 3, conv_cfg=dict(type='CondConv2d', num_experts=4), norm_cfg=dict(type='BN')
    )
    assert module(torch.randn(2, 8, 5, 5)).shape == (2, 16, 3, 3)


def test_fusing_batch_norm_keeps_the_function():
    module = ConvModule(
        8, 16, 3, conv_cfg=dict(type='CondConv2d', num_experts=4), norm_cfg=dict(type='BN')
    ).eval()
    for statistic in (module.bn.running_mean, module.bn.bias.data, module.bn.weight.data):
        statistic.normal_()
    module.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 5, 5)
    expected = module(x)
    torch.testing.assert_close(fuse_conv_bn(module)(x), expected, rtol=1e-4, atol=1e-4)


def test_copies_and_reloads():
    layer = CondConv2d(6, 8, 3, num_experts=4)
    x = torch.randn(2, 6, 5, 5)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(copy.deepcopy(layer)(x), y)
    other = CondConv2d(6, 8, 3, num_experts=4)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), y)


def test_double_precision_and_channels_last():
    layer = CondConv2d(6, 8, 3, num_experts=4, dtype=torch.float64)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected = layer(x)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


def test_bfloat16_autocast_trains():
    layer = CondConv2d(6, 8, 3, num_experts=4)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(torch.randn(2, 6, 5, 5))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0 for p in layer.parameters())


class Stack(BaseModule):
    """A routed and a plain twin of one layer, under one init_cfg."""

    def __init__(self, init_cfg, **conv):
        super().__init__(init_cfg)
        self.routed = CondConv2d(**conv, num_experts=4)
        self.plain = nn.Conv2d(**conv)


INITIALISERS = {
    'kaiming': dict(type='Kaiming'),
    'kaiming fan_in uniform': dict(
        type='Kaiming', mode='fan_in', a=1, nonlinearity='leaky_relu', distribution='uniform'
    ),
    'xavier uniform': dict(type='Xavier', distribution='uniform', bias=0),
    'xavier normal': dict(type='Xavier'),
    'caffe2': dict(type='Caffe2Xavier'),
    'normal': dict(type='Normal', std=0.01),
    'truncated normal': dict(type='TruncNormal', std=0.03),
    'uniform': dict(type='Uniform', a=-0.1, b=0.1),
}


@pytest.mark.parametrize('groups', [1, 64])
@pytest.mark.parametrize('initialiser', INITIALISERS.values(), ids=INITIALISERS)
def test_each_expert_starts_with_the_statistics_of_the_plain_layer(initialiser, groups):
    conv = dict(in_channels=64, out_channels=64, kernel_size=5, groups=groups)
    stack = Stack(dict(initialiser, layer='Conv2d'), **conv)
    stack.init_weights()
    stds = [expert.std() for expert in stack.routed.weight]
    expected = stack.plain.weight.std()
    for std in stds:
        assert abs(std / expected - 1) < 0.12
    assert len({std.item() for std in stds}) == 4, 'experts must differ'


@pytest.mark.parametrize('act_cfg', [dict(type='ReLU'), dict(type='LeakyReLU', negative_slope=0.5)])
def test_conv_module_and_construction_initialise_experts_like_plain_kernels(act_cfg):
    routed_cfg = dict(type='CondConv2d', num_experts=3)
    routed = ConvModule(32, 64, 3, conv_cfg=routed_cfg, act_cfg=act_cfg).conv
    plain = ConvModule(32, 64, 3, act_cfg=act_cfg).conv
    for expert in routed.weight:
        assert abs(expert.std() / plain.weight.std() - 1) < 0.05
    built, plain = CondConv2d(32, 64, 3, num_experts=3), nn.Conv2d(32, 64, 3)
    for expert in built.weight:
        assert abs(expert.std() / plain.weight.std() - 1) < 0.05
    assert abs(built.bias.abs().max() / plain.bias.abs().max() - 1) < 0.2


def test_every_parameter_gets_a_gradient():
    layer = CondConv2d(6, 8, 3, num_experts=4)
    F.relu(layer(torch.randn(2, 6, 5, 5))).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_a_copy_still_initialises_each_expert_as_one_kernel():
    copied = copy.deepcopy(CondConv2d(32, 64, 3, num_experts=3))
    with expert_fans():
        nn.init.kaiming_normal_(copied.weight)
    plain = nn.Conv2d(32, 64, 3)
    nn.init.kaiming_normal_(plain.weight)
    assert abs(copied.weight.std() / plain.weight.std() - 1) < 0.05


def test_a_network_can_be_channels_last():
    layer = CondConv2d(4, 6, 3, padding=1, num_experts=3)
    x = torch.randn(2, 4, 5, 5)
    expected, weight = layer(x), layer.weight
    layer.to(memory_format=torch.channels_last)
    assert layer.weight is weight and weight.is_contiguous() and weight.shape == (3, 6, 4, 3, 3)
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected)
    assert layer.to(torch.float64).weight.dtype == torch.float64
    assert layer.to('meta').weight.shape == (3, 6, 4, 3, 3)


def test_a_router_of_unknown_keys_is_named():
    with pytest.raises(ValueError, match=r"routing has unknown keys \['temp'\]; it takes"):
        CondConv2d(4, 4, 1, num_experts=2, routing=dict(temp=2))
    with pytest.raises(ValueError, match='routing must be a dict of .* got False'):
        CondConv2d(4, 4, 1, num_experts=2, routing=False)


def test_an_input_of_other_channels_is_named():
    with pytest.raises(ValueError, match=r'with C = 4 channels, got shape \(2, 5, 6, 6\)'):
        CondConv2d(4, 8, 3, num_experts=3)(torch.randn(2, 5, 6, 6))


@pytest.mark.parametrize('replace', ['to_empty', 'assign'])
def test_experts_that_become_other_parameters_are_known_as_such(replace):
    for layer, plain in (
        (CondConv2d(32, 64, 3, num_experts=3), nn.Conv2d(32, 64, 3)),
        (CondLinear(256, 128, num_experts=3), nn.Linear(256, 128)),
    ):
        if replace == 'to_empty':
            layer = layer.to('meta').to_empty(device='cpu')
        else:
            layer.load_state_dict(copy.deepcopy(layer).state_dict(), assign=True)
        assert has_expert_axis(layer.weight)
        with expert_fans():
            nn.init.kaiming_normal_(layer.weight)
        nn.init.kaiming_normal_(plain.weight)
        assert abs(layer.weight.std() / plain.weight.std() - 1) < 0.05
