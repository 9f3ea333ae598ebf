from functools import partial

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import CondConv2d, CondLinear, RoutedBlock, Router
from condconv_det.layers.cond_cfg import CondCfg

LOADERS = {
    'torch': lambda layer, state: layer.load_state_dict(state),
    'mmengine': lambda layer, state: load_state_dict(layer, state, strict=True),
}
ROUTINGS = (
    dict(activation='sigmoid'),
    dict(activation='softmax', temperature=30.0),
    dict(activation='sigmoid', hidden_channels=5),
)


@pytest.fixture(params=LOADERS)
def load(request):
    return LOADERS[request.param]


@pytest.mark.parametrize('num_experts', [1, 3, 8])
@pytest.mark.parametrize('routing', ROUTINGS)
def test_a_static_layer_keeps_its_function(load, num_experts, routing):
    x = torch.randn(4, 6, 9, 9)
    pairs = [
        (nn.Conv2d(6, 8, 3, groups=2), CondConv2d(6, 8, 3, groups=2, **dict(
            num_experts=num_experts, routing=routing)), x),
        (nn.Linear(6, 8), CondLinear(6, 8, num_experts=num_experts, routing=routing),
         x[:, :, 0, 0]),
    ]  # fmt: skip
    for static, routed, inputs in pairs:
        load(routed, static.state_dict())
        torch.testing.assert_close(routed(inputs), static(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('hidden_channels', [None, 5])
def test_a_layer_on_no_device_takes_a_static_one_and_its_device(hidden_channels):
    static, x = nn.Conv2d(6, 8, 3), torch.randn(4, 6, 9, 9)
    routing = dict(hidden_channels=hidden_channels)
    routed = CondConv2d(6, 8, 3, num_experts=4, routing=routing, device='meta')
    routed.load_state_dict(static.state_dict(), assign=True)
    torch.testing.assert_close(routed(x), static(x))
    assert hidden_channels is None or routed.router.hidden.weight.std() > 0.1


def test_experts_part_by_a_quarter_of_the_kernels_deviation_and_can_all_be_trained():
    static, routed = nn.Conv2d(16, 32, 3), CondConv2d(16, 32, 3, num_experts=8)
    routed.load_state_dict(static.state_dict())
    away = routed.weight - routed.weight.mean(0)
    # one eighth of the variance goes with the mean
    expected = 0.25 * static.weight.std() * (7 / 8) ** 0.5
    assert all(abs(part.std() / expected - 1) < 0.05 for part in away)
    routed(torch.randn(4, 16, 5, 5)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in routed.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_kernel_in_half_precision_is_split_in_the_networks(dtype):
    static, routed = nn.Conv2d(16, 32, 3).to(dtype), CondConv2d(16, 32, 3, num_experts=8)
    routed.load_state_dict(static.state_dict())
    torch.testing.assert_close(0.5 * routed.weight.sum(0), static.weight.float())


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_experts_of_a_router_outside_mix_to_the_kernel(activation):
    static, router = nn.Conv2d(3, 4, 3), Router(3, 4, activation)
    routed = CondConv2d(3, 4, 3, num_experts=4, routing=None, activation=activation)
    routed.load_state_dict(static.state_dict())
    nn.init.zeros_(router.fc.weight)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(routed(x, router(x)), static(x), rtol=1e-4, atol=1e-5)


def test_every_process_loads_the_same_experts():
    static = nn.Conv2d(3, 4, 3).state_dict()
    layers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layers.append(CondConv2d(3, 4, 3, num_experts=4))
        layers[-1].load_state_dict(static)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert len(static) == 2  # and the checkpoint is left as it was


def test_the_default_device_does_not_matter():
    static = nn.Conv2d(3, 4, 3).state_dict()
    one, other = CondConv2d(3, 4, 3, num_experts=4), CondConv2d(3, 4, 3, num_experts=4)
    one.load_state_dict(static)
    with torch.device('meta'):
        other.load_state_dict(static)
    assert torch.equal(one.weight, other.weight)


def test_a_routed_checkpoint_loads_as_it_is():
    one, other = CondConv2d(3, 4, 3, num_experts=4), CondConv2d(3, 4, 3, num_experts=4)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    'checkpoint, says',
    [
        (
            nn.Conv2d(3, 4, 5),
            r'weight: the checkpoint has a kernel of \[4, 3, 5, 5\], the network ',
        ),
        (CondConv2d(3, 4, 3, num_experts=2), 'weight: the checkpoint has 2 experts, the network 4'),
        (
            CondConv2d(3, 4, 3, num_experts=4, routing=None),
            'the layer: the network has a router here, .* another `routing`, or `cond_cfg.share`',
        ),
    ],
)
def test_what_does_not_fit_is_named(load, checkpoint, says):
    with pytest.raises((ValueError, CheckpointError), match=says):
        load(CondConv2d(3, 4, 3, num_experts=4), checkpoint.state_dict())


class Note(nn.Module):
    def get_extra_state(self):
        return dict(note=1)

    def set_extra_state(self, state):
        pass


class Block(RoutedBlock):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.note = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Note()


def routed_block():
    block = Block()
    block.route(CondCfg(2, 1, 'block'), first=True)
    return block


@pytest.mark.parametrize(
    'build, part',
    [
        (routed_block, 'bn.running_mean'),
        (routed_block, 'conv.bias'),
        (partial(CondConv2d, 3, 4, 3, num_experts=2), 'bias'),
        (partial(CondLinear, 3, 4, num_experts=2), 'bias'),
    ],
)
def test_a_part_without_a_kernel_leaves_routers_alone(build, part):
    layer = build()
    before = layer.router.fc.weight.clone()
    found = layer.load_state_dict({part: layer.state_dict()[part]}, strict=False)
    assert 'router.fc.weight' in found.missing_keys
    assert torch.equal(layer.router.fc.weight, before)


def test_a_static_block_zeroes_the_router_of_a_routed_one():
    block = routed_block()
    block.load_state_dict(Block().state_dict())
    assert not block.router.fc.weight.any()


def test_a_state_that_is_no_tensor_passes():
    block, other = routed_block(), routed_block()
    other.load_state_dict(block.state_dict())
    assert torch.equal(other.conv.weight, block.conv.weight)
