import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from condconv_det.layers import CondConv2d, CondLinear


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        CondConv2d(4, 4, 3, groups=4, num_experts=2),
        CondConv2d(4, 8, 1, num_experts=2, routing=None),
        CondLinear(8, 5, num_experts=2),
    )


def build(model, optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5), **paramwise_cfg):
    cfg = dict(
        optimizer=optimizer,
        constructor='CondConvOptimWrapperConstructor',
        paramwise_cfg=paramwise_cfg,
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    by_parameter = {id(value): group for group in groups for value in group['params']}
    return {name: by_parameter[id(value)] for name, value in model.named_parameters()}


EXPERTS = {'2.weight', '3.weight', '4.weight'}


def test_only_experts_learn_slower():
    groups = build(network(), expert_lr_mult=0.25)
    assert EXPERTS < set(groups) and '2.router.fc.weight' in groups and '2.bias' in groups
    for name, group in groups.items():
        assert group['lr'] == (0.025 if name in EXPERTS else 0.1), name
        assert group['weight_decay'] == 0.5


def test_one_adam_step_moves_experts_by_their_own_rate():
    model = network()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = dict(type='Adam', lr=0.1)
    cfg = dict(
        optimizer=optimizer,
        constructor='CondConvOptimWrapperConstructor',
        paramwise_cfg=dict(expert_lr_mult=0.25),
    )
    wrapper = build_optim_wrapper(model, cfg)
    sum((value * (1 + torch.rand_like(value))).sum() for value in model.parameters()).backward()
    wrapper.step()
    for name, value in model.named_parameters():
        step = torch.full_like(value, 0.025 if name in EXPERTS else 0.1)
        torch.testing.assert_close(before[name] - value, step, rtol=1e-3, atol=1e-6)


def test_it_multiplies_what_the_other_options_make_of_the_rate():
    groups = build(
        network(),
        expert_lr_mult=0.25,
        norm_decay_mult=0.0,
        dwconv_decay_mult=0.2,
        bias_lr_mult=2.0,
        custom_keys={'4.': dict(lr_mult=0.5)},
    )
    rates = {name: group['lr'] for name, group in groups.items()}
    assert (rates['2.weight'], rates['4.weight']) == (0.025, 0.0125)
    assert (rates['4.router.fc.weight'], rates['2.bias'], rates['0.weight']) == (0.05, 0.2, 0.1)
    decays = {name: group['weight_decay'] for name, group in groups.items()}
    assert (decays['1.weight'], decays['2.weight'], decays['3.weight']) == (0.0, 0.1, 0.5)


def test_without_the_option_it_is_mmengines():
    groups = build(network())
    assert {group['lr'] for group in groups.values()} == {0.1}


def test_a_key_for_routers_does_not_yield_to_a_longer_one():
    model = nn.ModuleDict(dict(backbone=network()))
    keys = dict(router=dict(lr_mult=0.1), backbone=dict(lr_mult=0.5))
    with pytest.raises(ValueError, match="'router' does not reach backbone.2.router.fc.weight, fo"):
        build(model, custom_keys=keys)
    groups = build(model, custom_keys={**keys, '.router.fc.': dict(lr_mult=0.1)})
    rates = {name: round(group['lr'], 6) for name, group in groups.items()}
    assert (rates['backbone.2.router.fc.bias'], rates['backbone.0.weight']) == (0.01, 0.05)


@pytest.mark.parametrize(
    'model, options, says',
    [
        (network(), dict(expert_lr_mult=0), "expert_lr_mult must be above 0 or 'matched', got 0"),
        (network(), dict(expert_lr_mult='slow'), "must be above 0 or 'matched', got 'slow'"),
        (
            network(),
            dict(expert_lr_mult=0.5, optimizer=dict(type='Adam')),
            'expert_lr_mult multiplies optimizer.lr, which is unset',
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3)),
            dict(expert_lr_mult=0.5),
            'Sequential has no experts that train: leave out paramwise_cfg.expert_lr_mult',
        ),
    ],
)
def test_bad_options_are_named(model, options, says):
    with pytest.raises(ValueError, match=says):
        build(model, **options)
