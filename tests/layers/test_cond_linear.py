import copy

import pytest
import torch
from mmengine.model import initialize
from torch import nn

from condconv_det.layers import CondLinear


@pytest.mark.parametrize('batch', [1, 3])
def test_mixes_its_experts_as_its_router_says(batch):
    layer = CondLinear(6, 4, num_experts=3)
    x = torch.randn(batch, 6)
    kernels = torch.einsum('be,eoi->boi', layer.router(x), layer.weight)
    torch.testing.assert_close(layer(x), torch.einsum('boi,bi->bo', kernels, x) + layer.bias)


def test_one_expert_at_one_is_a_plain_layer():
    layer, plain = CondLinear(6, 4, num_experts=1), nn.Linear(6, 4)
    layer.weight.data[0], layer.bias.data = plain.weight.data, plain.bias.data
    nn.init.zeros_(layer.router.fc.weight)
    nn.init.constant_(layer.router.fc.bias, 100.0)
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), plain(x))


def test_each_expert_starts_like_a_plain_layer():
    layer, plain = CondLinear(256, 128, num_experts=4), nn.Linear(256, 128)
    for weight in (layer.weight, copy.deepcopy(layer).weight):
        for expert in weight:
            assert abs(expert.std() / plain.weight.std() - 1) < 0.05
    initialize(layer, dict(type='Normal', layer='Linear', std=0.01))
    assert abs(layer.weight.std() / 0.01 - 1) < 0.05


def test_a_copy_still_knows_its_experts():
    layer = copy.deepcopy(CondLinear(256, 128, num_experts=4))
    layer.reset_parameters()
    assert abs(layer.weight[0].std() / nn.Linear(256, 128).weight.std() - 1) < 0.05


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='num_experts must be an integer of at least 1, got 0'):
        CondLinear(6, 4, num_experts=0)
    with pytest.raises(ValueError, match='routing must be a dict of .* got None'):
        CondLinear(6, 4, num_experts=2, routing=None)
    with pytest.raises(ValueError, match='hierarchical routing is for backbones, not for CondL'):
        CondLinear(6, 4, num_experts=2, routing=dict(hierarchical=True))
