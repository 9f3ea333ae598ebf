"""PyTorch's initialisers know of experts where they fill a routed layer, and nowhere else."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import nn
from torch.nn import init

from condconv_det.layers import CondConv2d, CondLinear, expert_fans


@pytest.fixture(autouse=True)
def _pytorch_is_left_as_it_was():
    assert init._calculate_fan_in_and_fan_out.__module__ == 'torch.nn.init'
    yield
    assert init._calculate_fan_in_and_fan_out.__module__ == 'torch.nn.init'


def test_a_layer_that_is_built_or_initialised_by_mmengine_leaves_nothing_behind():
    CondConv2d(3, 4, 3, num_experts=2)
    CondLinear(3, 4, num_experts=2)
    ConvModule(3, 4, 3, conv_cfg=dict(type='CondConv2d', num_experts=2))
    network = BaseModule(dict(type='Kaiming', layer='Conv2d'))
    network.conv = CondConv2d(3, 4, 3, num_experts=2)
    network.init_weights()


def test_nor_does_an_initialiser_that_fails():
    network = BaseModule(dict(type='Constant', layer='Conv2d'))  # which lacks its value
    network.conv = CondConv2d(3, 4, 3, num_experts=2)
    with pytest.raises(TypeError):
        network.init_weights()


def test_an_initialiser_of_ones_own_fills_each_expert_as_a_kernel():
    layer, plain = CondConv2d(32, 64, 3, num_experts=4), nn.Conv2d(32, 64, 3)
    with expert_fans(), expert_fans():
        init.xavier_uniform_(layer.weight)
        init.xavier_uniform_(plain.weight)
    for expert in layer.weight:
        torch.testing.assert_close(expert.std(), plain.weight.std(), rtol=0.03, atol=0)


def test_threads_may_initialise_at_the_same_time():
    both = Barrier(2)

    def initialise(waits):
        layer = CondConv2d(16, 32, 3, num_experts=2)
        with expert_fans():
            both.wait()
            if waits:
                both.wait()  # until the other has left
            init.kaiming_normal_(layer.weight)
        if not waits:
            both.wait()
        return float(layer.weight.detach().std() / (2 / (16 * 9)) ** 0.5)

    with ThreadPoolExecutor(2) as pool:
        for ratio in pool.map(initialise, (True, False)):
            assert abs(ratio - 1) < 0.05
