"""Non-maximum suppression against a loop over pairs in mmcv's order of operations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv_operators import needs_ours, ops
from torch import Tensor

pytestmark = needs_ours

METHODS = ('naive', 'linear', 'gaussian')
f32 = np.float32


def iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    def area(box: np.ndarray) -> np.float32:
        return (box[2] - box[0] + f32(offset)) * (box[3] - box[1] + f32(offset))

    width = max(f32(0), min(a[2], b[2]) - max(a[0], b[0]) + f32(offset))
    height = max(f32(0), min(a[3], b[3]) - max(a[1], b[1]) + f32(offset))
    inter = width * height
    union = area(a) + area(b) - inter
    return inter / union if union != 0 else f32('nan')


def loop_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for j in sorted(range(len(scores)), key=lambda j: -scores[j]):
        if not any(iou(boxes[i], boxes[j], offset) > f32(threshold) for i in kept):
            kept.append(j)
    return kept


def loop_soft_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    """Array of records, swapped and shortened one at a time as mmcv's C++ does."""
    records = [[i, f32(score)] for i, score in enumerate(scores)]
    i = 0
    while i < len(records):
        best = i
        for j in range(i + 1, len(records)):
            if records[best][1] < records[j][1]:
                best = j
        records[i], records[best] = records[best], records[i]
        j = i + 1
        while j < len(records):
            overlap = iou(boxes[records[i][0]], boxes[records[j][0]], offset)
            weight = f32(1)
            if method == 'gaussian':
                weight = np.exp(-(overlap * overlap) / f32(0.5))
            elif overlap >= f32(threshold):
                weight = f32(0) if method == 'naive' else f32(1) - overlap
            records[j][1] = records[j][1] * weight
            if records[j][1] < f32(1e-3):
                records[j] = records[-1]
                records.pop()
            else:
                j += 1
        i += 1
    return [index for index, _ in records], [float(score) for _, score in records]


@st.composite
def detections(draw) -> tuple[Tensor, Tensor]:
    """Boxes on a coarse grid with few scores: ties, copies and empty boxes are common."""
    number = draw(st.integers(0, 12))
    whole = st.integers(0, 6)
    rows = [[draw(whole), draw(whole), draw(whole), draw(whole)] for _ in range(number)]
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = [draw(st.integers(1, 8)) / 8 for _ in range(number)]
    return boxes, torch.tensor(scores, dtype=torch.float32)


@given(detections(), st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7]), st.integers(0, 1))
def test_nms_equals_loop(inputs, threshold, offset):
    boxes, scores = inputs
    dets, keep = ops.nms(boxes, scores, threshold, offset)
    assert keep.tolist() == loop_nms(boxes.numpy(), scores.numpy(), threshold, offset)
    torch.testing.assert_close(dets, torch.cat((boxes, scores[:, None]), 1)[keep])


@given(detections(), st.sampled_from([0.25, 0.3, 0.5]), st.integers(0, 1), st.sampled_from(METHODS))
def test_soft_nms_equals_loop(inputs, threshold, offset, method):
    boxes, scores = inputs
    dets, keep = ops.soft_nms(boxes, scores, threshold, method=method, offset=offset)
    with np.errstate(invalid='ignore'):
        index, lowered = loop_soft_nms(boxes.numpy(), scores.numpy(), threshold, method, offset)
    assert keep.tolist() == index
    torch.testing.assert_close(dets[:, :4], boxes[keep])
    expected = torch.tensor(lowered, dtype=torch.float32)
    torch.testing.assert_close(dets[:, 4], expected, equal_nan=True)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('method', METHODS)
def test_soft_nms_breaks_ties_as_mmcv_after_many_drops(method, seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randint(0, 8, (60, 4), generator=generator).float()
    boxes[:, 2:] += boxes[:, :2] + 4
    scores = torch.randint(1, 4, (60,), generator=generator) / 300
    keep = ops.soft_nms(boxes, scores, 0.3, method=method)[1]
    index, _ = loop_soft_nms(boxes.numpy(), scores.numpy(), 0.3, method, 0)
    assert keep.tolist() == index


@given(detections(), st.sampled_from([0.25, 0.3, 0.5]))
def test_nms_match_groups_each_box_with_its_suppressor(inputs, threshold):
    boxes, scores = inputs
    groups = ops.nms_match(torch.cat((boxes, scores[:, None]), 1), threshold)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(boxes)))
    rank = torch.empty(len(scores), dtype=torch.long)
    rank[scores.sort(descending=True, stable=True).indices] = torch.arange(len(scores))
    for position, group in enumerate(groups):
        assert rank[group].tolist() == sorted(rank[group].tolist())
        for member in group[1:]:
            assert iou(boxes[group[0]].numpy(), boxes[member].numpy(), 0) >= f32(threshold)
        for member in group:
            for earlier in groups[:position]:
                overlap = iou(boxes[earlier[0]].numpy(), boxes[member].numpy(), 0)
                assert not overlap >= f32(threshold)


def test_overlap_equal_to_the_threshold_in_float32_is_kept():
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.3)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.2999)[1].tolist() == [0]


def test_offset_of_one_counts_the_last_pixel():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])  # 10x10 and 10x5 pixels
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.49, offset=1)[1].tolist() == [0]
    assert ops.nms(boxes, scores, 0.49, offset=0)[1].tolist() == [0, 1]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    torch.manual_seed(0)
    boxes = torch.randint(0, 40, (60, 4)).to(dtype)
    boxes[:, 2:] += boxes[:, :2] + 1
    scores = torch.linspace(1, 0.1, 60).to(dtype).unique().flip(0)
    boxes = boxes[: len(scores)]
    keep = ops.nms(boxes, scores, 0.5)[1]
    assert keep.tolist() == ops.nms(boxes.float(), scores.float(), 0.5)[1].tolist()
    dets, keep = ops.soft_nms(boxes, scores, 0.5)
    assert dets.dtype == dtype
    assert keep.tolist() == ops.soft_nms(boxes.float(), scores.float(), 0.5)[1].tolist()


def test_scores_may_be_of_another_dtype_than_boxes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert ops.nms(boxes, torch.tensor([0.5, 0.75]).half(), 0.5)[1].tolist() == [1]


def test_numpy_in_numpy_out():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], dtype=np.float32)
    scores = np.array([0.5, 0.75], dtype=np.float32)
    for function in (ops.nms, ops.soft_nms):
        dets, keep = function(boxes, scores, 0.5)
        assert isinstance(dets, np.ndarray)
        assert keep[0] == 1


@pytest.mark.parametrize('method', METHODS)
def test_no_boxes(method):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    assert ops.soft_nms(boxes, scores, method=method)[0].shape == (0, 5)
    assert ops.nms(boxes, scores, 0.5, offset=1)[0].shape == (0, 5)
    assert ops.nms_match(torch.zeros(0, 5), 0.5) == []


def test_inputs_are_left_alone_and_may_require_grad():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]], requires_grad=True)
    scores = torch.tensor([0.5, 0.75], requires_grad=True)
    before = boxes.detach().clone(), scores.detach().clone()
    ops.soft_nms(boxes, scores)
    dets, _ = ops.nms(boxes, scores, 0.5, offset=1)
    dets.sum().backward()
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])
    assert scores.grad.tolist() == [0, 1]


def test_gaussian_weight_is_the_papers():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    dets, _ = ops.soft_nms(boxes, torch.tensor([0.9, 0.8]), sigma=0.4, method='gaussian')
    assert dets[1, 4].item() == pytest.approx(0.8 * math.exp(-(0.5**2) / 0.4), rel=1e-6)
