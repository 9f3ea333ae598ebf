"""Lengths of trainings and sizes of anchors."""

import numpy as np
import pytest

from condconv_det.study.sizing import place_anchors, plan_schedule


def square(*pixels):
    return np.array([[side / 300, side / 300] for side in pixels])


@pytest.mark.parametrize('num_images', [3, 70, 110, 399, 400, 3500, 20000])
def test_a_schedule_has_enough_steps_and_ten_validations(num_images):
    plan = plan_schedule(num_images)
    assert (plan.steps - 1) * plan.batch < num_images <= plan.steps * plan.batch
    assert plan.epochs == 10 * plan.interval
    assert plan.epochs * plan.steps >= 1000 and plan.epochs >= 30
    assert plan.epochs == 30 or (plan.epochs - 10) * plan.steps < 1000
    assert 0.03 <= plan.momentum <= 0.1


def test_quantiles_of_boxes_leave_strays_out():
    anchors = place_anchors(square(2, *[60] * 98, 290))
    assert (anchors.smallest, anchors.largest) == (60, 60)
    assert anchors.strides == (16, 32, 64)
    assert place_anchors(square(26, 283)).strides == (8, 16, 32, 64, 128)
    assert place_anchors(square(9, 30)).strides == (4, 8, 16, 32, 64)
    # the side of a square of a box's area at 300 pixels
    assert place_anchors(np.array([[0.1, 0.4]])).smallest == pytest.approx(60)
