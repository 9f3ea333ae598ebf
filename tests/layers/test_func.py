"""Layers as functions of their weights: `torch.func.functional_call` under grad and vmap."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from condconv_det.layers import CondConv2d, CondLinear


def network():
    """Every kind of routed layer, in float64."""
    return nn.Sequential(
        CondConv2d(3, 8, 3, padding=1, num_experts=4),
        nn.SiLU(),
        CondConv2d(8, 8, 3, groups=8, padding='same', stride=2, num_experts=4),
        CondConv2d(8, 16, 1, num_experts=4, routing=dict(activation='softmax')),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        CondLinear(16, 5, num_experts=4),
    ).double()


@pytest.fixture
def images():
    return torch.randn(4, 3, 9, 8, dtype=torch.float64)


def loss_of(net, weights, images):
    return functional_call(net, weights, (images,)).square().sum()


def weights_of(net):
    return {name: weight.detach() for name, weight in net.named_parameters()}


def test_the_gradient_of_a_functional_call_is_autograds(images):
    net = network()
    net(images).square().sum().backward()
    expected = {name: weight.grad for name, weight in net.named_parameters()}
    found = grad(lambda weights: loss_of(net, weights, images))(weights_of(net))
    torch.testing.assert_close(found, expected)


def test_gradients_of_each_image_are_those_of_a_loop(images):
    net = network()
    of_image = grad(lambda weights, image: loss_of(net, weights, image[None]))
    found = vmap(of_image, in_dims=(None, 0))(weights_of(net), images)
    for index, image in enumerate(images):
        net.zero_grad()
        net(image[None]).square().sum().backward()
        for name, weight in net.named_parameters():
            torch.testing.assert_close(found[name][index], weight.grad)


def test_networks_side_by_side_are_those_one_by_one(images):
    nets = [network() for _ in range(3)]
    weights, _ = stack_module_state(nets)
    found = vmap(lambda weights: functional_call(nets[0], weights, (images,)))(weights)
    torch.testing.assert_close(found, torch.stack([net(images) for net in nets]))
