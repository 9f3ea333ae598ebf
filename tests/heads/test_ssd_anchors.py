import pytest
import torch
from mmengine.registry import TASK_UTILS

SIDES = (19, 10, 5, 3, 2, 1)


@pytest.fixture
def generator():
    return TASK_UTILS.build(
        dict(
            type='TFSSDAnchorGenerator',
            strides=[300 / side for side in SIDES],
            input_size=300,
            scale_range=(0.2, 0.95),
        )
    )


def sizes(anchors):
    return (anchors[:, 2:] - anchors[:, :2]) / 300


def test_levels_have_three_then_six_anchors(generator):
    assert generator.num_base_priors == [3, 6, 6, 6, 6, 6]
    assert generator.num_levels == 6


def test_scales_and_ratios_are_tensorflows(generator):
    # widths and heights of `ssd_anchor_generator`: 6 layers, 0.2 to 0.95, worked out by hand
    first = torch.tensor([[0.1, 0.1], [0.2 * 2**0.5, 0.2 / 2**0.5], [0.2 / 2**0.5, 0.2 * 2**0.5]])
    torch.testing.assert_close(sizes(generator.base_anchors[0]), first)
    second = sizes(generator.base_anchors[1])
    torch.testing.assert_close(second[0], torch.tensor([0.35, 0.35]))
    torch.testing.assert_close(second[3], torch.tensor([0.35 * 3**0.5, 0.35 / 3**0.5]))
    torch.testing.assert_close(second[5], torch.full((2,), (0.35 * 0.5) ** 0.5))
    last = sizes(generator.base_anchors[5])
    torch.testing.assert_close(last[5], torch.full((2,), 0.95**0.5))


def test_centres_lie_in_the_middle_of_each_cell(generator):
    priors = generator.grid_priors([(side, side) for side in SIDES], device='cpu')
    assert sum(len(level) for level in priors) == 19 * 19 * 3 + 6 * (100 + 25 + 9 + 4 + 1)
    centres = (priors[1][:, :2] + priors[1][:, 2:]) / 2
    expected = (torch.arange(10) + 0.5) * 30
    torch.testing.assert_close(centres[::6, 0].reshape(10, 10)[0], expected)
    torch.testing.assert_close(centres[::6, 1].reshape(10, 10)[:, 0], expected)


def test_the_first_level_can_have_all_anchors():
    whole = TASK_UTILS.build(
        dict(type='TFSSDAnchorGenerator', strides=[8, 16], reduce_first_level=False)
    )
    assert whole.num_base_priors == [6, 6]
    torch.testing.assert_close(sizes(whole.base_anchors[0])[0], torch.tensor([0.2, 0.2]))
