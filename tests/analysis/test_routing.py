import math

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from condconv_det import CondConv2d
from condconv_det.analysis.routing import (
    Grouping,
    RoutingRecorder,
    chance_ratio,
    summarize,
    variance_ratio,
)
from condconv_det.backbones import CondConvMobileNetV1


class TwoLevels(nn.Module):
    """A head that runs on two maps, and a router that sees two regions of each image."""

    def __init__(self):
        super().__init__()
        self.regions = CondConv2d(3, 4, 1, num_experts=2)
        self.head = CondConv2d(3, 4, 1, num_experts=2)

    def forward(self, x):
        self.head(x)
        self.head(x[..., ::2, ::2])
        self.regions(torch.cat([x, x]))


def record(model, *batches):
    recorder = RoutingRecorder(model)
    with recorder, torch.no_grad():
        for x in batches:
            model(x)
            recorder.end_batch(len(x))
    return recorder


def backbone(share, **routing):
    cond_cfg = dict(num_experts=4, start=12, share=share, routing=routing)
    return CondConvMobileNetV1(widen_factor=0.125, cond_cfg=cond_cfg).eval()


def test_weights_are_what_the_routers_answer_in_order_of_images():
    layer = CondConv2d(3, 4, 1, num_experts=2)
    model, x = nn.Sequential(nn.ReLU(), layer), torch.randn(5, 3, 8, 8)
    (weights,) = record(model, x[:3], x[3:]).pop().values()
    expected = torch.sigmoid(x.relu().mean((2, 3)) @ layer.router.fc.weight.T)[:, None]
    np.testing.assert_allclose(weights, expected.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    'share, names',
    [
        (
            'layer',
            [f'layer5.{i}.{part}_conv.conv' for i in (0, 1) for part in ('depthwise', 'pointwise')],
        ),
        ('block', ['layer5.0', 'layer5.1']),
        ('network', ['layer5.0']),
    ],
)
def test_layers_are_named_by_the_owner_of_their_router_in_running_order(share, names):
    weights = record(backbone(share), torch.randn(2, 3, 32, 32)).pop()
    assert list(weights) == names
    assert {w.shape for w in weights.values()} == {(2, 1, 4)}


def test_hierarchical_routers_are_recorded():
    assert len(record(backbone('block', hierarchical=True), torch.randn(2, 3, 32, 32)).pop()) == 2


def test_running_order_is_not_the_order_of_construction():
    model = TwoLevels()
    recorder = RoutingRecorder(model)
    assert list(recorder.routers) == ['regions', 'head']
    with recorder:
        model.head(torch.randn(1, 3, 4, 4))
        model.regions(torch.randn(1, 3, 4, 4))
    recorder.end_batch(1)
    assert list(recorder.pop()) == ['head', 'regions']


def test_each_level_is_a_call_and_a_router_of_regions_is_left_out():
    x = torch.randn(3, 3, 4, 4)
    recorder = record(model := TwoLevels(), x)
    assert recorder.left_out == {'regions'}
    (weights,) = recorder.pop().values()
    for call, level in enumerate([x, x[..., ::2, ::2]]):
        expected = model.head.router(level).detach().numpy()
        np.testing.assert_allclose(weights[:, call], expected, rtol=1e-6)


def test_a_recorder_that_is_not_listening_hears_nothing():
    model = CondConv2d(3, 4, 1, num_experts=2)
    recorder = record(model, x := torch.randn(1, 3, 4, 4))
    recorder.pop()
    model(x)
    recorder.end_batch(1)
    assert recorder.pop() == {}
    assert not model.router._forward_hooks


def test_a_batch_that_failed_is_no_part_of_the_next():
    model = CondConv2d(3, 4, 1, num_experts=2)
    recorder = RoutingRecorder(model)
    with recorder:
        model(torch.randn(5, 3, 4, 4))
    with recorder:
        model(torch.randn(2, 3, 4, 4))
    recorder.end_batch(2)
    assert recorder.pop()['router'].shape == (2, 1, 2)


def test_a_wrapper_is_no_part_of_a_layers_name(monkeypatch):
    monkeypatch.setattr(
        MMDistributedDataParallel, '__init__', lambda self: nn.Module.__init__(self)
    )
    wrapper = MMDistributedDataParallel()
    wrapper.module = backbone('network')
    assert list(RoutingRecorder(wrapper).routers) == ['layer5.0']


def test_a_network_without_routers_is_named():
    with pytest.raises(ValueError, match='Sequential has no routed layers'):
        RoutingRecorder(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_images_belong_to_each_group_that_they_hold():
    grouping = Grouping.from_labels('class', ['cat', 'dog', 'cow'], [[0, 2, 2], [], [2]])
    assert grouping.groups == ['cat', 'cow']
    assert grouping.counts.tolist() == [1, 2]
    assert [grouping.images(group).tolist() for group in (0, 1)] == [[0], [0, 2]]
    weights = np.array([[[0.0, 0.2], [0.4, 0.2]], [[0.9, 0.9]] * 2, [[1.0, 0.4]] * 2])
    np.testing.assert_allclose(grouping.mean_weights(weights), [[0.2, 0.2], [0.6, 0.3]])


@pytest.mark.parametrize(
    'labels, says',
    [
        ([[0], [0], []], 'all 2 images with a camera have the same one, a'),
        ([[0, 1], [], [1, 0]], 'every image with a camera is of each of the 2'),
        ([[0], [1], [2]], 'no camera has two images'),
        ([[], []], 'no image has a camera'),
        ([[0], [1], [1]], None),
        ([[0, 1], [1]], None),
    ],
)
def test_groups_that_no_routing_can_tell_apart(labels, says):
    assert Grouping.from_labels('camera', 'abc', labels).not_compared == says


def loop_variance_ratio(weights, labels):
    """The definition, with one row for each image and class it holds."""
    rows = [(c, image.ravel()) for image, found in zip(weights, labels) for c in found]
    mean = sum(w for _, w in rows) / len(rows)
    between = within = 0.0
    for group in {c for c, _ in rows}:
        own = [w for c, w in rows if c == group]
        centre = sum(own) / len(own)
        between += len(own) * ((centre - mean) ** 2).sum()
        within += sum(((w - centre) ** 2).sum() for w in own)
    return between / within


@pytest.mark.parametrize('calls', [1, 3])
def test_variance_ratio_is_its_definition(calls):
    rng = np.random.default_rng(0)
    weights = rng.random((20, calls, 4))
    labels = [rng.choice(5, rng.integers(0, 4), replace=False).tolist() for _ in range(20)]
    member = Grouping.from_labels('class', 'abcde', labels).member
    expected = loop_variance_ratio(weights, labels)
    assert variance_ratio(weights, member) == pytest.approx(expected, rel=1e-6)


def test_levels_that_differ_are_no_variance_within_groups():
    rng = np.random.default_rng(0)
    weights = rng.random((20, 1, 4))
    member = Grouping.from_labels('class', 'ab', [[i % 2] for i in range(20)]).member
    levels = np.concatenate([weights, weights + 5], 1)
    assert variance_ratio(levels, member) == pytest.approx(variance_ratio(weights, member))


def test_weights_that_are_constant_but_for_rounding_tell_nothing_apart():
    groups = np.arange(10) % 2
    member = Grouping.from_labels('class', 'ab', groups[:, None].tolist()).member
    rounding = np.spacing(np.float32(0.7)) * groups  # as if one group were always rounded up
    weights = 0.7 + np.float64(rounding)[:, None, None].repeat(3, 2)
    assert variance_ratio(weights, member) < 0.01
    assert variance_ratio(np.full((10, 1, 3), 0.7), member) == 0
    assert variance_ratio(weights * 1e-2, member) == 0


def test_groups_that_matter_beat_chance_and_others_do_not():
    rng = np.random.default_rng(0)
    weights = rng.random((60, 1, 4))
    groups = np.arange(60) % 3
    member = Grouping.from_labels('class', 'abc', groups[:, None].tolist()).member
    assert variance_ratio(weights, member) < chance_ratio(weights, member) < 0.3
    weights[groups == 1] += 0.5
    assert variance_ratio(weights, member) > 2 * chance_ratio(weights, member)


def test_entropy_goes_from_one_expert_alone_to_all_alike():
    alone, alike, none = [0.0, 0.6, 0.0, 0.0], [0.1] * 4, [0.0] * 4
    assert summarize(np.array([[alone]])).entropy == 0
    assert summarize(np.array([[alike]])).entropy == pytest.approx(2)
    assert summarize(np.array([[none]])).entropy == 0
    p = np.array([0.2, 0.8])
    two = summarize(np.array([[p]])).entropy
    assert two == pytest.approx(-sum(x * math.log2(x) for x in p))


def test_deviation_is_over_the_images_and_not_over_the_experts():
    weights = np.array([[[0.1, 0.9, 0.5]], [[0.3, 0.9, 0.3]]])
    assert summarize(weights).deviation == pytest.approx(math.sqrt(2 * 0.1**2 / 3))


def test_levels_that_differ_are_no_deviation_of_images():
    image = [[0.1, 0.9], [0.9, 0.1]]  # [levels, experts]
    assert summarize(np.array([image] * 3)).deviation == pytest.approx(0)


def test_saturated_weights_are_those_near_0_and_1():
    assert summarize(np.array([[[0.04, 0.06, 0.94, 0.96]]])).saturated == 0.5


def test_a_dead_expert_has_no_share_in_any_image():
    # an even share is 1/4: a weight of 0.02 is dead beside 1 and alive beside 0.1
    weights = np.array([[[1.0, 1.0, 0.02, 0.02]], [[1.0, 0.0, 0.02, 0.1]]])
    assert summarize(weights).dead == [2]
    assert summarize(np.array([[[0.1, 0.1, 0.1, 0.02]]])).dead == []
    assert summarize(np.full((2, 1, 64), 1 / 64)).dead == []  # an even softmax
