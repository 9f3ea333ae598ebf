"""Merged experts mix to the kernels that the experts before them mixed to, up to a tolerance."""

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.deploy import (
    cast_experts,
    fold_batch_norm,
    freeze_routing,
    mean_routing,
    merge_experts,
)
from condconv_det.deploy.freeze_routing import kernel_spread
from condconv_det.deploy.merge_experts import MergedRouter
from condconv_det.layers import CondConv2d, CondLinear, Router

EXACT = 1e-6  # a tolerance that only directions keep to in which nothing moves


def spread_routing(model):
    """Starts routers so that images are routed apart."""
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.normal_(router.fc.weight, std=3)
    return model


@torch.no_grad()
def recorded(model, x):
    recorder = RoutingRecorder(model)
    with recorder:
        answer = model(x)
        recorder.end_batch(len(x))
    return answer, recorder.pop()


def expert_counts(model):
    return [layer.num_experts for layer in model.modules() if isinstance(layer, CondConv2d)]


def assert_same(found, expected, tolerance=1e-9):
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.dtype == torch.float64
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize('share', ['layer', 'block', 'network'])
@torch.no_grad()
def test_three_images_need_three_experts_and_get_the_same_maps(backbone_cfg, share, settle):
    x = torch.randn(3, 3, 64, 96).double()
    model = MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=6, share=share)))
    settle(spread_routing(model).double(), x)
    expected, weights = recorded(model, x)
    before = copy.deepcopy(model.state_dict())
    merged = merge_experts(model, weights, EXACT)
    assert set(expert_counts(merged)) == {3}
    assert_same(merged(x), expected)
    assert_same(merged(x[1:2]), [level[1:2] for level in expected])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(AssertionError):  # of images that it has not seen it may differ
        other = torch.randn(3, 3, 64, 96).double() * 3
        assert_same(merged(other), model(other), tolerance=1e-6)


@torch.no_grad()
def layer_and_weights():
    layer = CondConv2d(4, 8, 3, padding=1, num_experts=5).double()
    rng = np.random.default_rng(0)
    weights = 0.5 + rng.normal(size=(40, 1, 5)) * [0.2, 0.1, 0.05, 0.02, 0.01]
    kernels = torch.tensordot(torch.from_numpy(weights[:, 0]), layer.weight.flatten(1), dims=1)
    return layer, weights, kernels.numpy()


@pytest.mark.parametrize('directions', [1, 2, 3])
@torch.no_grad()
def test_directions_are_the_fewest_and_the_best_by_the_singular_values_of_kernels(directions):
    layer, weights, kernels = layer_and_weights()
    mean = kernels.mean(0)
    values = np.linalg.svd(kernels - mean, compute_uv=False)
    scale = np.linalg.norm(mean) * len(kernels) ** 0.5
    least = np.linalg.norm(values[directions:]) / scale  # no fewer directions come nearer
    merged = merge_experts(layer, {'router': weights}, least * 1.001)
    assert expert_counts(merged) == [directions + 1]
    more = merge_experts(layer, {'router': weights}, least * 0.999)
    assert expert_counts(more) == [directions + 2] if directions < 3 else more.num_experts == 5

    rows = torch.from_numpy(weights[:, 0])
    found = merged.router.merge.double()(rows) @ merged.weight.flatten(1)
    assert np.linalg.norm(found.numpy() - kernels) / scale == pytest.approx(least, rel=1e-6)


@torch.no_grad()
def test_where_one_kernel_is_enough_the_layer_is_static():
    layer, weights, kernels = layer_and_weights()
    spread = kernel_spread(layer, {'router': weights})['']
    static = merge_experts(layer, {'router': weights}, spread * 1.001)
    assert type(static) is nn.Conv2d
    np.testing.assert_allclose(static.weight.flatten().numpy(), kernels.mean(0), rtol=1e-9)
    assert isinstance(
        merge_experts(layer, {'router': weights}, spread * 0.999).router, MergedRouter
    )


@pytest.mark.parametrize('share', ['layer', 'block', 'network'])
@torch.no_grad()
def test_a_network_that_routes_all_images_alike_loses_its_routers(share, settle):
    x = torch.randn(3, 3, 64, 64).double()
    cond_cfg = dict(num_experts=4, share=share)
    model = MODELS.build(dict(type='CondConvResNet', depth=18, cond_cfg=cond_cfg))
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.zeros_(router.fc.weight)
    settle(model.double(), x)
    expected, weights = recorded(model, x)
    merged = merge_experts(model, weights, EXACT)
    assert not any(isinstance(module, Router | CondConv2d) for module in merged.modules())
    assert_same(merged(x), expected)


@torch.no_grad()
def test_a_layer_of_which_no_expert_can_be_left_out_stays_as_it_is():
    layer, weights, _ = layer_and_weights()
    merged = merge_experts(layer, {'router': weights}, EXACT)
    assert merged is not layer and isinstance(merged.router, Router)
    assert torch.equal(merged.weight, layer.weight)


@torch.no_grad()
def test_experts_that_are_alike_count_once():
    layer, weights, _ = layer_and_weights()
    layer.weight[1:4] = layer.weight[:1]
    merged = merge_experts(layer, {'router': weights}, EXACT)
    assert merged.num_experts == 3  # two kernels, of weights that do not sum to 1
    x = torch.randn(2, 4, 6, 6).double()
    rows = torch.from_numpy(weights[:2, 0])
    assert_same([merged(x, merged.router.merge.double()(rows))], [layer(x, rows)])


@torch.no_grad()
def test_a_routed_classifier_is_merged_too():
    x = torch.randn(3, 16).double()
    layer = CondLinear(16, 10, num_experts=6).double()
    nn.init.normal_(layer.router.fc.weight, std=3)
    expected, weights = recorded(layer, x)
    merged = merge_experts(layer, weights, EXACT)
    assert merged.weight.shape == (3, 10, 16)
    assert_same([merged(x)], [expected])


@torch.no_grad()
def test_norms_are_folded_and_experts_cast_afterwards(settle):
    x = torch.randn(3, 3, 64, 64).double()
    backbone = dict(type='CondConvMobileNetV1', widen_factor=0.25, cond_cfg=dict(num_experts=6))
    model = settle(spread_routing(MODELS.build(backbone)).double(), x)
    expected, weights = recorded(model, x)
    folded = fold_batch_norm(merge_experts(model, weights, EXACT))
    assert_same(folded(x), expected)
    assert_same(cast_experts(folded, torch.float16)(x), expected, tolerance=0.5)


@torch.no_grad()
def test_merged_experts_are_neither_merged_again_nor_frozen():
    layer, weights, _ = layer_and_weights()
    merged = nn.Sequential(merge_experts(layer, {'router': weights}, 0.1))
    assert isinstance(merged[0].router, MergedRouter)
    _, again = recorded(merged, torch.randn(2, 4, 6, 6).double())
    with pytest.raises(ValueError, match='experts of Sequential are merged already: .* of 0$'):
        merge_experts(merged, again, 0.1)
    with pytest.raises(ValueError, match='experts of Sequential are merged already: .* of 0$'):
        freeze_routing(merged, mean_routing(again))


def test_bad_input_is_named():
    layer, weights, _ = layer_and_weights()
    for tolerance in (0, 1, float('nan')):
        with pytest.raises(ValueError, match='tolerance must be above 0 and below 1, got'):
            merge_experts(layer, {'router': weights}, tolerance)
    with pytest.raises(ValueError, match='Conv2d has no routed layers'):
        merge_experts(nn.Conv2d(4, 4, 1), {}, 0.1)
    with pytest.raises(ValueError, match='without routing weights, one for each image; none came'):
        merge_experts(layer, {}, 0.1)
    for wrong in (weights[:1], weights[..., :3], weights[:, 0]):
        with pytest.raises(ValueError, match=r'must be \[N, C, E\] of at least 2 images and 5 exp'):
            merge_experts(layer, {'router': wrong}, 0.1)
    hierarchical = CondConv2d(4, 4, 1, num_experts=2, routing=dict(hierarchical=True))
    with pytest.raises(ValueError, match='its routers are hierarchical'):
        merge_experts(hierarchical, {'router': weights[..., :2]}, 0.1)
