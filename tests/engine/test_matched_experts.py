"""`expert_lr_mult='matched'`: whatever then differs from the static twin is the routing."""

import logging

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn
from torch.nn.utils import prune

from condconv_det.layers import CondConv2d, CondLinear
from condconv_det.layers.expert_fans import has_expert_axis

SGD = dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=0.1)
ADAMW = dict(type='AdamW', lr=1e-5, weight_decay=20.0)
NADAMW = dict(type='NAdam', lr=1e-5, weight_decay=20.0, decoupled_weight_decay=True)
RMSPROP = dict(type='RMSprop', lr=1e-3, alpha=0.9, momentum=0.9, eps=1e-3)


def wrapper(model, optimizer, mult='matched', **kwargs):
    cfg = dict(
        optimizer=optimizer,
        constructor='CondConvOptimWrapperConstructor',
        paramwise_cfg={} if mult is None else dict(expert_lr_mult=mult),
        **kwargs,
    )
    return build_optim_wrapper(model, cfg)


def twins(activation, num_experts=8):
    """A routed MobileNetV1, its routers zero and frozen, and the static network it starts as."""
    cfg = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(3, 4))
    cond_cfg = dict(
        num_experts=num_experts,
        start=1,
        share='block',
        init='one-kernel',
        routing=dict(activation=activation),
    )
    routed, static = MODELS.build(dict(cfg, cond_cfg=cond_cfg)), MODELS.build(cfg)
    routed.init_weights()
    share = 0.5 if activation == 'sigmoid' else 1 / num_experts
    mixed = {}
    for name, value in routed.named_parameters():
        if 'router' in name:
            nn.init.zeros_(value).requires_grad_(False)
        else:
            mixed[name] = share * value.double().sum(0) if has_expert_axis(value) else value
    static.double().load_state_dict({**static.state_dict(), **mixed})
    return routed.double().train(), static.train()


def difference(optimizer, activation, mult='matched'):
    """Of the twins' outputs, relative, after five steps on the same images."""
    routed, static = twins(activation)
    images = torch.randn(5, 4, 3, 64, 64, dtype=torch.float64)
    for model, option in ((routed, mult), (static, None)):
        optim_wrapper = wrapper(model, optimizer, option)
        for batch in images:
            optim_wrapper.update_params(sum(y.square().mean() for y in model(batch)))
    found, expected = routed(images[0])[-1], static(images[0])[-1]
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('activation', ['sigmoid', pytest.param('softmax', marks=pytest.mark.long)])
@pytest.mark.parametrize('optimizer', [SGD, ADAMW, NADAMW, RMSPROP], ids=lambda cfg: cfg['type'])
def test_mixed_kernels_move_as_the_static_twins_do(optimizer, activation):
    assert difference(optimizer, activation) < 1e-6


@pytest.mark.parametrize('optimizer', [SGD, ADAMW, RMSPROP], ids=lambda cfg: cfg['type'])
def test_unmatched_they_do_not(optimizer):
    assert difference(optimizer, 'sigmoid', mult=1.0) > 1e-4


@pytest.mark.parametrize(
    'optimizer, rates, decays',
    [
        (dict(type='SGD', lr=0.1, weight_decay=0.5), (0.2, 0.1), (0.25, 0.5)),
        (dict(type='SGD', lr=0.1), (0.2, 0.1), (0.0, 0.0)),
        (dict(type='AdamW', lr=0.1), (0.1, 0.05), (0.01, 0.02)),
        (dict(type='RMSprop', lr=0.1), (0.1, 0.05), (0.0, 0.0)),
        # as MMEngine writes the class of a config
        (dict(type='torch.optim.adamw.AdamW', lr=0.1), (0.1, 0.05), (0.01, 0.02)),
    ],
)
def test_each_layer_is_matched_by_its_own_experts_and_activation(optimizer, rates, decays):
    model = nn.Sequential(
        CondConv2d(3, 4, 3, num_experts=2, routing=dict(activation='softmax')),
        CondLinear(4, 5, num_experts=4),
    )
    of = {id(v): g for g in wrapper(model, optimizer).optimizer.param_groups for v in g['params']}
    found = [of[id(layer.weight)] for layer in model]
    assert [group['lr'] for group in found] == pytest.approx(rates)
    assert [group['weight_decay'] for group in found] == pytest.approx(decays)
    assert of[id(model[0].bias)]['lr'] == 0.1


def test_eps_of_a_custom_key_is_matched_too():
    model = nn.Sequential(CondConv2d(3, 4, 3, num_experts=2), CondLinear(4, 5, num_experts=2))
    cfg = dict(
        optimizer=dict(type='AdamW', lr=0.1),
        constructor='CondConvOptimWrapperConstructor',
        paramwise_cfg=dict(expert_lr_mult='matched', custom_keys={'0.': dict(eps=1e-3)}),
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    of = {id(value): group for group in groups for value in group['params']}
    assert [of[id(layer.weight)]['eps'] for layer in model] == [5e-4, 5e-9]


@pytest.mark.parametrize(
    'change', [lambda layer: prune.l1_unstructured(layer, 'weight', 0.5), nn.utils.spectral_norm]
)
def test_experts_under_another_name_are_matched_too(change):
    model = nn.Sequential(CondConv2d(3, 4, 3, num_experts=4))
    change(model[0])
    groups = wrapper(model, dict(type='AdamW', lr=0.1)).optimizer.param_groups
    of = {id(value): group for group in groups for value in group['params']}
    assert of[id(model[0].weight_orig)]['lr'] == 0.05
    assert of[id(model[0].router.fc.weight)]['lr'] == 0.1


@pytest.mark.parametrize(
    'optimizer, kwargs, says, level',
    [
        (
            dict(type='Adam', lr=0.1, weight_decay=0.1),
            {},
            'does not match the weight decay of Adam: take AdamW',
            logging.WARNING,
        ),
        (
            dict(type='SGD', lr=0.1),
            dict(clip_grad=dict(max_norm=1.0)),
            'clip_grad is set: gradients of experts are of another size',
            logging.INFO,
        ),
        (
            dict(type='Adam', lr=0.1),
            dict(clip_grad=dict(type='value', clip_value=1.0)),
            'clip_grad is set: gradients of experts are of another size',
            logging.INFO,
        ),
        (dict(type='AdamW', lr=0.1), {}, None, None),
        (dict(NADAMW, lr=0.1), {}, None, None),
    ],
)
def test_what_cannot_be_matched_is_said(optimizer, kwargs, says, level, monkeypatch):
    said = []
    monkeypatch.setattr(
        'condconv_det.engine.optim_wrapper_constructor.print_log',
        lambda message, logger, level: said.append((message, level)),
    )
    wrapper(nn.Sequential(CondConv2d(3, 4, 3, num_experts=2)), optimizer, **kwargs)
    assert bool(said) == bool(says)
    assert all(says in message and found == level for message, found in said)


def test_an_optimizer_that_it_does_not_know_is_named():
    with pytest.raises(ValueError, match="'matched' knows SGD, Adam, .* got Adagrad: give the"):
        wrapper(nn.Sequential(CondConv2d(3, 4, 3, num_experts=2)), dict(type='Adagrad', lr=0.1))
