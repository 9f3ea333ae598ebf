"""Recipes ask for AdamW's fused form on any torch and device."""

import copy
import inspect

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from condconv_det.compat.fused_optimizers import FusedOnGPUs


@pytest.mark.parametrize('grouped', [False, True])
def test_on_a_cpu_of_an_old_torch_it_is_left_out(grouped):
    network = nn.Linear(3, 2)
    params = [dict(params=[p]) for p in network.parameters()] if grouped else network.parameters()
    optimizer = FusedOnGPUs(params, lr=1e-3, fused=True)
    assert optimizer.defaults['fused'] is None and optimizer.defaults['lr'] == 1e-3


def test_it_shows_the_defaults_of_adamw():
    own, theirs = map(inspect.signature, (FusedOnGPUs, torch.optim.AdamW))
    assert own.parameters['weight_decay'] == theirs.parameters['weight_decay']


@pytest.mark.gpu
def test_on_a_gpu_it_is_heeded():
    assert FusedOnGPUs(nn.Linear(3, 2).cuda().parameters(), fused=True).defaults['fused']


def test_a_recipe_takes_the_plain_steps():
    plain = nn.Linear(6, 5).double()
    networks = {True: plain, None: copy.deepcopy(plain)}
    for fused, network in networks.items():
        optimizer = dict(type='AdamW', lr=1e-2, weight_decay=0.05, fused=fused)
        wrapper = build_optim_wrapper(network, dict(optimizer=optimizer))
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)
        for _ in range(3):
            wrapper.update_params(network(x).square().sum())
    torch.testing.assert_close(networks[True].weight, networks[None].weight, rtol=1e-12, atol=0)
