"""Accumulated and clipped gradients, recomputed blocks, averaged weights are what they should be.

In several processes: see test_many_processes.py.
"""

import math

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS

from condconv_det.layers.expert_fans import has_expert_axis


def test_accumulated_gradients_are_those_of_the_whole_batch(train_steps, detector, batch):
    start = {key: value.clone() for key, value in detector.state_dict().items()}
    whole = batch(8)
    parts = [{key: values[part::4] for key, values in whole.items()} for part in range(4)]
    found = train_steps(detector, parts, accumulative_counts=4)
    detector.load_state_dict(start)
    expected = train_steps(detector, [whole])
    for kind in ('gradients', 'weights'):
        for key, value in expected[kind].items():
            atol = 1e-6 * value.abs().max().item()
            torch.testing.assert_close(found[kind][key], value, rtol=0, atol=atol, msg=key)


def test_clipped_gradients_keep_their_direction_and_get_the_norm(train_steps, detector, batch):
    start = {key: value.clone() for key, value in detector.state_dict().items()}
    batches = [batch(2)]
    plain = train_steps(detector, batches)['gradients']
    detector.load_state_dict(start)
    max_norm = 0.1
    clipped = train_steps(detector, batches, clip_grad=dict(max_norm=max_norm))
    norm = math.sqrt(sum(value.double().square().sum().item() for value in plain.values()))
    assert norm > 2 * max_norm
    for key, value in plain.items():
        scaled = value * (max_norm / norm)
        torch.testing.assert_close(clipped['gradients'][key], scaled, rtol=1e-4, atol=1e-8)
        moved = start[key] - 0.01 * scaled
        torch.testing.assert_close(clipped['weights'][key], moved, rtol=1e-5, atol=1e-8)


def test_recomputed_blocks_get_the_same_gradients_and_statistics(backbone_cfg):
    x = torch.randn(4, 3, 64, 64)
    trained = []
    for with_cp in (False, True):
        torch.manual_seed(1)  # for the weights, and for the blocks that stochastic depth drops
        model = MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=4), with_cp=with_cp))
        model.train()
        for _ in range(2):
            model.zero_grad()
            sum(level.square().mean() for level in model(x)).backward()
        trained.append((model, {key: value.grad for key, value in model.named_parameters()}))
    (kept, expected), (recomputed, found) = trained
    statistics = dict(recomputed.named_buffers())
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert [k for k, v in kept.named_buffers() if not torch.equal(statistics[k], v)] == []
    assert any(key.endswith('num_batches_tracked') for key in statistics)


def test_averaged_weights_are_the_average_and_leave_training_alone(train_steps, detector, batch):
    start = {key: value.clone() for key, value in detector.state_dict().items()}
    batches, momentum = [batch(2) for _ in range(4)], 0.3
    expected_weights = train_steps(detector, batches, optimizer=dict(type='SGD', lr=0.05))
    detector.load_state_dict(start)

    averaged = ExponentialMovingAverage(detector, momentum)
    expected = None
    for each in batches:
        weights = train_steps(detector, [each], optimizer=dict(type='SGD', lr=0.05))['weights']
        averaged.update_parameters(detector)
        weights = {key: value.double() for key, value in weights.items()}
        if expected is None:
            expected = weights
        else:
            expected = {
                key: (1 - momentum) * value + momentum * weights[key]
                for key, value in expected.items()
            }
    for key, value in averaged.module.named_parameters():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-7, msg=key)
        assert value.grad is None and not value.requires_grad
        assert has_expert_axis(value) == has_expert_axis(detector.get_parameter(key))
    for key, value in expected_weights['weights'].items():
        assert torch.equal(detector.get_parameter(key), value)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            averaged.module.backbone.conv1.conv.weight, detector.backbone.conv1.conv.weight
        )
