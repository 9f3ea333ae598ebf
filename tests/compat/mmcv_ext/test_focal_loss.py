"""Focal losses against plain formulas in float64, with autograd's gradients."""

import pytest
import torch
import torchvision
from mmcv_operators import needs_ours, ops
from torch import Tensor

pytestmark = needs_ours

N, C = 12, 5
PARAMETERS = [(2.0, 0.25), (0.0, 0.5), (0.5, 0.75), (1.5, 0.1)]  # gamma, alpha
LOSSES = [ops.sigmoid_focal_loss, ops.softmax_focal_loss]
IDS = ['sigmoid', 'softmax']


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(N, C, dtype=torch.float64)).requires_grad_()


def plain_sigmoid(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    one_hot = torch.nn.functional.one_hot(target, C + 1)[:, :C].to(logits)
    return torchvision.ops.sigmoid_focal_loss(logits, one_hot, alpha, gamma)


def plain_softmax(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    log_p = logits.log_softmax(1)[torch.arange(len(target)), target.clamp(min=0)]
    return torch.where(target >= 0, -alpha * (1 - log_p.exp()) ** gamma * log_p, 0.0)


def check(found: Tensor, expected: Tensor, logits: Tensor) -> None:
    torch.testing.assert_close(found, expected)
    (found_grad,) = torch.autograd.grad(found, logits)
    (expected_grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found_grad, expected_grad)
    assert expected_grad.any()


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(('gamma', 'alpha'), PARAMETERS)
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_sigmoid_equals_torchvision(logits, reduction, gamma, alpha, weighted):
    target = torch.arange(N) % (C + 1)  # with background
    weight = torch.rand(C).double() + 0.5
    factor = torch.cat((weight, torch.ones(1)))[target, None] if weighted else 1
    found = ops.sigmoid_focal_loss(
        logits, target, gamma, alpha, weight if weighted else None, reduction
    )
    expected = (plain_sigmoid(logits, target, gamma, alpha) * factor).sum()
    check(found, expected / N if reduction == 'mean' else expected, logits)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(('gamma', 'alpha'), PARAMETERS)
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_softmax_equals_plain_formula(logits, reduction, gamma, alpha, weighted):
    target = torch.arange(N) % (C + 1) - 1  # with ignored examples
    weight = torch.rand(C).double() + 0.5
    factor = weight[target] if weighted else 1
    found = ops.softmax_focal_loss(
        logits, target, gamma, alpha, weight if weighted else None, reduction
    )
    expected = (plain_softmax(logits, target, gamma, alpha) * factor).sum()
    check(found, expected / N if reduction == 'mean' else expected, logits)


def test_unreduced_shapes(logits):
    target = torch.arange(N) % C
    found = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    torch.testing.assert_close(found, plain_sigmoid(logits, target, 2.0, 0.25))
    found = ops.softmax_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    torch.testing.assert_close(found, plain_softmax(logits, target, 2.0, 0.25))


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('loss', LOSSES, ids=IDS)
def test_large_logits_give_finite_gradients(loss, gamma):
    logits = torch.tensor([[60.0, -60], [-60, 60], [200, -200]], requires_grad=True)
    loss(logits, torch.tensor([0, 0, 1]), gamma, 0.25, None, 'sum').backward()
    assert logits.grad.isfinite().all()


def test_sigmoid_of_a_large_logit_is_exact_in_float32():
    logits = torch.tensor([[30.0]])
    found = ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'sum')
    assert found.item() == pytest.approx(0.75 * 30, rel=1e-5)


@pytest.mark.parametrize('loss', LOSSES, ids=IDS)
def test_no_examples(loss):
    logits = torch.zeros(0, C, requires_grad=True)
    output = loss(logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    output.backward()
    assert output.item() == 0
    assert logits.grad.shape == (0, C)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('loss', LOSSES, ids=IDS)
def test_half_precision_is_float32_rounded(logits, loss, dtype):
    target = torch.arange(N) % C
    low = logits.detach().to(dtype).requires_grad_()
    high = low.detach().float().requires_grad_()
    results = []
    for leaf in (low, high):
        output = loss(leaf, target, 2.0, 0.25, None, 'sum')
        output.backward()
        results.append((output, leaf.grad))
    assert low.grad.dtype == dtype
    for a, b in zip(*results, strict=True):
        # mmcv takes the softmax in the input's own dtype before the operator sees it.
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.02)
