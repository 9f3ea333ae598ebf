import math

import pytest
import torch

from condconv_det.deploy.check import (
    Comparison,
    detection_differences,
    largest_differences,
    open_file,
)
from condconv_det.deploy.write import METADATA

BOX = [10.0, 10.0, 20.0, 20.0]


def detections(*rows):
    """One image's detections, each (box, score, label)."""
    boxes, scores, labels = zip(*rows)
    return torch.tensor([boxes]), torch.tensor([scores]), torch.tensor([labels])


def shifted(pixels):
    return [side + pixels for side in BOX]


def test_the_order_of_equal_scores_does_not_matter():
    a, b = (BOX, 0.7, 1), (shifted(40), 0.7, 1)
    nothing = (BOX, 0.0, -1)
    assert detection_differences(detections(a, b, nothing), detections(b, a, nothing), 0.1) == (
        0,
        0,
    )


def test_the_largest_distances_of_partners_are_found():
    ours = detections((BOX, 0.7, 1), (shifted(40), 0.6, 1), (BOX, 0.0, -1))
    theirs = detections((shifted(0.25), 0.7, 1), (shifted(40), 0.6005, 1), (BOX, 0.0, -1))
    assert detection_differences(ours, theirs, 0.1) == pytest.approx((0.25, 0.0005), abs=1e-6)


@pytest.mark.parametrize('swap', [False, True], ids=['too few', 'too many'])
@pytest.mark.parametrize('other', [(BOX, 0.6, 2), (BOX, 0.0, -1)], ids=['class', 'nothing'])
def test_a_detection_without_a_partner_is_infinitely_far(swap, other):
    pair = detections((BOX, 0.6, 1), (BOX, 0.0, -1)), detections(other, (BOX, 0.0, -1))
    assert detection_differences(*(pair[::-1] if swap else pair), 0.1) == (math.inf, math.inf)


def test_what_one_side_may_just_miss_needs_no_partner():
    at_threshold = detections((BOX, 0.1005, 1)), detections((BOX, 0.0, -1))
    assert detection_differences(*at_threshold, 0.1) == (0, 0)
    # full lists, whose last places went to either of two that score alike
    first = (BOX, 0.9, 1)
    lists = detections(first, (shifted(40), 0.5, 1)), detections(first, (shifted(80), 0.5004, 1))
    assert detection_differences(*lists, 0.1) == (0, 0)


def test_a_value_that_is_not_a_number_never_agrees():
    boxes, scores = torch.zeros(1, 2, 4), torch.zeros(1, 2, 3)
    broken = scores.clone()
    broken[0, 1, 2] = math.nan
    same, worse = (
        Comparison(1, 'real', *largest_differences((boxes, other), (boxes, scores)), 1, 1)
        for other in (scores, broken)
    )
    assert same.agrees and not worse.agrees


@pytest.mark.parametrize(
    'broken', [([math.nan] * 4, 0.7, 1), ([10.0, 10.0, 20.0, math.nan], 0.7, 1), (BOX, math.nan, 1)]
)
def test_a_detection_that_is_not_a_number_never_agrees(broken):
    whole, nothing = (BOX, 0.7, 1), (BOX, 0.0, -1)
    for rows in ([broken, nothing], [broken, whole, nothing], [whole, broken, nothing]):
        expected = [whole] * (len(rows) - 1) + [nothing]
        differences = detection_differences(detections(*rows), detections(*expected), 0.1)
        assert not Comparison(1, 'real', *differences, 1, 1).agrees


def test_a_file_runs_on_as_many_threads_as_pytorch(tmp_path, monkeypatch):
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in 'xy')
    node = onnx.helper.make_node('Neg', ['x'], ['y'])
    graph = onnx.helper.make_graph([node], 'negative', [x], [y])
    model = onnx.helper.make_model(graph, ir_version=10)
    onnx.helper.set_model_props(model, {METADATA: '{}'})
    onnx.save(model, tmp_path / 'negative.onnx')
    sessions = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            sessions.append(self)

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    open_file(tmp_path / 'negative.onnx', 'onnx')
    (session,) = sessions
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
