import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.conv_ws import ConvWS2d
from torch import nn

from condconv_det.layers import CondConv2d, RoutedBlock, run_routed

ROUTING = torch.tensor([[0.3, 0.9], [0.5, 0.1]])


def test_a_plain_layer_lets_routing_weights_pass():
    x = torch.randn(2, 3, 5, 5)
    layer = nn.Conv2d(3, 4, 3)
    y, routing = run_routed(layer, x, ROUTING)
    assert routing is ROUTING
    torch.testing.assert_close(y, layer(x))


def test_a_layer_without_router_uses_those_it_is_handed():
    x = torch.randn(2, 3, 5, 5)
    layer = CondConv2d(3, 4, 3, num_experts=2, routing=None)
    y, routing = run_routed(layer, x, ROUTING)
    assert routing is ROUTING
    torch.testing.assert_close(y, layer(x, ROUTING))


def test_a_router_replaces_them():
    x = torch.randn(2, 3, 5, 5)
    layer = CondConv2d(3, 4, 3, num_experts=2)
    y, routing = run_routed(layer, x, ROUTING)
    torch.testing.assert_close(routing, layer.router(x))
    torch.testing.assert_close(y, layer(x))


def test_a_hierarchical_router_reads_them():
    x = torch.randn(2, 3, 5, 5)
    layer = CondConv2d(3, 4, 3, num_experts=2, routing=dict(hierarchical=True))
    _, routing = run_routed(layer, x, ROUTING)
    torch.testing.assert_close(routing, layer.router(x, ROUTING))
    with pytest.raises(ValueError, match='hierarchical router'):
        layer(x)


BN = dict(type='BN')


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(act_cfg=None),
        dict(norm_cfg=BN),
        dict(norm_cfg=BN, order=('norm', 'act', 'conv')),
        dict(padding=1, padding_mode='reflect'),
    ],
)
def test_a_conv_module_computes_what_it_does_by_itself(kwargs):
    x = torch.randn(2, 3, 5, 5)
    module = ConvModule(3, 3, 3, conv_cfg=dict(type='CondConv2d', num_experts=2), **kwargs)
    seen = []
    module.conv.router.register_forward_hook(lambda router, x, out: seen.append(out))
    expected, passed = run_routed(module, x, ROUTING)
    assert passed is ROUTING
    module.conv.router = None
    y, routing = run_routed(module, x, seen[0])
    assert routing is seen[0]
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize('plain', [nn.Conv2d, Conv2dAdaptivePadding])
def test_a_routed_layer_takes_over_a_plain_ones_geometry(plain):
    conv = plain(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False)
    routed = CondConv2d.from_conv(conv, num_experts=1, routing=None)
    routed.weight.data[0] = conv.weight.data
    x = torch.randn(2, 4, 9, 12)
    torch.testing.assert_close(routed(x, torch.ones(2, 1)), conv(x))


def test_a_convolution_of_another_kind_is_not_replaced_in_silence():
    with pytest.raises(ValueError, match='plain convolution, got ConvWS2d'):
        CondConv2d.from_conv(ConvWS2d(3, 4, 3), num_experts=2)


class NormedBlock(RoutedBlock):
    def __init__(self, with_cp):
        super().__init__()
        self.with_cp = with_cp
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward_layers(self, x, routing):
        x, routing = run_routed(self.conv, x, routing)
        return self.bn(x), routing


def test_a_block_that_is_recomputed_adds_a_batch_to_its_statistics_once():
    kept, recomputed = NormedBlock(with_cp=False), NormedBlock(with_cp=True)
    recomputed.load_state_dict(kept.state_dict())
    x = torch.randn(4, 3, 6, 6, requires_grad=True)
    for block in (kept, recomputed):
        block(x).square().sum().backward()
    for name, value in kept.named_buffers():
        assert value.any() and torch.equal(value, recomputed.get_buffer(name)), name
