import pytest
import torch
from torch.nn import functional as F

from condconv_det.ops import cond_linear


@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize('batch', [0, 1, 2, 5])
def test_equals_each_examples_own_linear_layer(batch, with_bias):
    x, routing = torch.randn(batch, 6).double(), torch.rand(batch, 3).double()
    weight = torch.randn(3, 4, 6).double()
    bias = torch.randn(4).double() if with_bias else None
    y = cond_linear(x, routing, weight, bias)
    assert y.shape == (batch, 4)
    for example in range(batch):
        kernel = sum(routing[example, expert] * weight[expert] for expert in range(3))
        torch.testing.assert_close(y[example], F.linear(x[example], kernel, bias))


@pytest.mark.parametrize('batch', [1, 3])
def test_gradients_are_right(batch):
    tensors = [torch.randn(batch, 5), torch.rand(batch, 3), torch.randn(3, 2, 5), torch.randn(2)]
    inputs = [tensor.double().requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(cond_linear, inputs)


@pytest.mark.parametrize(
    'x, routing, weight, says',
    [
        ((2, 5), (2, 3), (3, 4, 6), r'x must be \[B, Cin\] = \[B, 6\], got shape \(2, 5\)'),
        ((2, 6, 1), (2, 3), (3, 4, 6), 'x must be'),
        ((2, 6), (2, 4), (3, 4, 6), r'routing must be \[B, E\] = \[2, 3\], got shape \(2, 4\)'),
        ((2, 6), (2, 3), (4, 6), r'weight must be \[E, Cout, Cin\], got shape \(4, 6\)'),
    ],
)
def test_shapes_that_do_not_fit_are_named(x, routing, weight, says):
    with pytest.raises(ValueError, match=says):
        cond_linear(torch.zeros(x), torch.zeros(routing), torch.zeros(weight))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('batch', [1, 3])
def test_half_precision_experts_are_mixed_in_float32(batch, dtype):
    x, routing, weight = torch.randn(batch, 6), torch.rand(batch, 3), torch.randn(3, 4, 6).to(dtype)
    bias = torch.randn(4).to(dtype)
    y = cond_linear(x, routing, weight, bias)
    assert y.dtype == torch.float32
    expected = cond_linear(x.double(), routing.double(), weight.double(), bias.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'changes, error, says',
    [
        (dict(routing=torch.rand(2, 3).half()), TypeError, 'routing is torch.float16, x torch.flo'),
        (dict(routing=torch.ones(2, 3).long()), TypeError, 'floating point, got torch.int64'),
        (dict(weight=torch.rand(3, 4, 6).double()), TypeError, 'weight is torch.float64, x torch'),
        (dict(weight=torch.rand(3, 4, 6, device='meta')), ValueError, 'cpu, cpu and meta'),
    ],
)
def test_types_and_devices_that_do_not_fit_are_named(changes, error, says):
    given = dict(x=torch.rand(2, 6), routing=torch.rand(2, 3), weight=torch.rand(3, 4, 6))
    with pytest.raises(error, match=says):
        cond_linear(**{**given, **changes})
