import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_paths import ALL_PATHS, MODULE, forced
from random_layers import KINDS, layers, loop_over_examples, tensors
from torch.nn import functional as F

from condconv_det.ops import cond_conv2d


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@given(data=st.data())
def test_equals_a_float64_loop_over_examples_with_its_gradients(kind, path, data):
    case = data.draw(layers(kind))
    ours = [t if t is None else t.clone().requires_grad_() for t in tensors(case)]
    loop = [t if t is None else t.clone().requires_grad_() for t in tensors(case)]
    how = (case['stride'], case['padding'], case['dilation'], case['groups'])
    with forced(path):
        y = cond_conv2d(*ours, *how)
    expected = loop_over_examples(*loop, *how)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)

    grad = torch.randn_like(y)
    y.backward(grad)
    if case['batch']:  # an empty loop has no graph; the gradients must be zeros
        (expected * grad).sum().backward()
    for mine, theirs in zip(ours, loop):
        if mine is not None:
            reference = torch.zeros_like(mine) if theirs.grad is None else theirs.grad
            torch.testing.assert_close(mine.grad, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@given(data=st.data())
def test_bfloat16_autocast_stays_near_the_loop(kind, path, data):
    case = data.draw(layers(kind))
    # where PyTorch 2.14's own bfloat16 convolution is wrong on a CPU with AMX
    assume(case['stride'] != (1, 2))
    x, routing, weight, bias = tensors(case)
    how = (case['stride'], case['padding'], case['dilation'], case['groups'])
    with torch.autocast('cpu', torch.bfloat16), forced(path):
        y = cond_conv2d(x, routing, weight, bias, *how)
    expected = loop_over_examples(x, routing, weight, bias, *how)
    assert y.dtype == torch.bfloat16
    # 8 bits of mantissa, sums of up to some hundred products
    torch.testing.assert_close(y.double(), expected, rtol=0.05, atol=0.5)


def test_an_example_does_not_depend_on_its_neighbours():
    x, routing, weight = torch.randn(4, 6, 8, 8), torch.rand(4, 5), torch.randn(5, 7, 6, 3, 3)
    together = cond_conv2d(x, routing, weight, padding=1)
    for index in range(4):
        alone = cond_conv2d(x[index, None], routing[index, None], weight, padding=1)
        torch.testing.assert_close(together[index, None], alone, rtol=1e-4, atol=1e-4)


def test_one_expert_at_weight_one_is_a_plain_convolution():
    x, weight = torch.randn(3, 4, 6, 6), torch.randn(1, 5, 4, 3, 3)
    ours = cond_conv2d(x, torch.ones(3, 1), weight, padding=1)
    torch.testing.assert_close(ours, F.conv2d(x, weight[0], padding=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kernel_size, groups', [(1, 1), (3, 1), (3, 4)])
@pytest.mark.parametrize('batch', [0, 1, 3])
def test_half_precision_experts_are_mixed_in_float32(batch, kernel_size, groups, dtype):
    weight = torch.randn(5, 8, 8 // groups, kernel_size, kernel_size).to(dtype).requires_grad_()
    x, routing = torch.randn(batch, 8, 6, 6), torch.rand(batch, 5)
    y = cond_conv2d(x, routing, weight, groups=groups)
    assert y.dtype == torch.float32
    exact = weight.detach().double().requires_grad_()
    expected = cond_conv2d(x.double(), routing.double(), exact, groups=groups)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(weight.grad, exact.grad.to(dtype))


@pytest.mark.parametrize('kernel_size', [1, 3])
@pytest.mark.parametrize('batch', [1, 2])
def test_a_tuple_of_one_says_both_directions(batch, kernel_size):
    x, routing = torch.randn(batch, 4, 7, 7), torch.rand(batch, 3)
    weight = torch.randn(3, 6, 4, kernel_size, kernel_size)
    for how in (dict(stride=(2,)), dict(padding=(1,)), dict(dilation=(2,))):
        both = {name: size * 2 for name, size in how.items()}
        y = cond_conv2d(x, routing, weight, **how)
        assert torch.equal(y, cond_conv2d(x, routing, weight, **both))


def arguments(**changes):
    given = dict(
        x=torch.rand(2, 4, 5, 5), routing=torch.rand(2, 3), weight=torch.rand(3, 6, 4, 1, 1)
    )
    return {**given, **changes}


@pytest.mark.parametrize(
    'changes, error, says',
    [
        (
            dict(routing=torch.rand(2, 4)),
            ValueError,
            r'routing must be \[B, E\] = \[2, 3\].*\(2, 4\)',
        ),
        (
            dict(routing=torch.rand(3, 3)),
            ValueError,
            r'routing must be \[B, E\] = \[2, 3\].*\(3, 3\)',
        ),
        (dict(routing=torch.rand(3)), ValueError, r'routing must be \[B, E\]'),
        (dict(routing=torch.rand(2, 3).double()), TypeError, 'float64.*float32'),
        (dict(routing=torch.rand(2, 3).half()), TypeError, 'float16.*float32'),
        (
            dict(routing=torch.rand(2, 3).half(), weight=torch.rand(3, 6, 4, 1, 1).bfloat16()),
            TypeError,
            'routing is torch.float16, x torch.float32',
        ),
        (dict(routing=torch.ones(2, 3, dtype=torch.long)), TypeError, 'floating point.*int64'),
        (
            dict(routing=torch.rand(2, 3, device='meta')),
            ValueError,
            'one device.*cpu, meta and cpu',
        ),
        (dict(weight=torch.rand(6, 4, 1, 1)), ValueError, r'weight must be \[E, Cout'),
        (dict(x=torch.rand(2, 5, 5, 5)), ValueError, 'x has 5 channels.*takes 4'),
        (dict(x=torch.rand(4, 5, 5)), ValueError, r'x must be \[B, Cin, H, W\]'),
        (
            dict(x=torch.rand(2, 16, 5, 5), groups=4),
            ValueError,
            r'weight \(3, 6, 4, 1, 1\) has 6 output channels, which groups=4 must divide',
        ),
        (dict(stride=0), ValueError, r'stride and dilation .* got \(0, 0\) and \(1, 1\)'),
        (dict(dilation=(1, 0)), ValueError, r'at least 1, got \(1, 1\) and \(1, 0\)'),
        (dict(stride=(1, 2, 3)), ValueError, r'stride must be .* a pair, got \(1, 2, 3\)'),
        (
            dict(weight=torch.rand(3, 6, 4, 3, 3), dilation=(1, 4), padding=(0, 1)),
            ValueError,
            r'a kernel of \(3, 3\) with dilation \(1, 4\) .* x of \(5, 5\) with padding \(0, 1\)',
        ),
        (dict(x=torch.rand(2, 4, 0, 5)), ValueError, r'does not fit on x of \(0, 5\)'),
        (dict(padding='full'), ValueError, "padding must be .* got 'full'"),
        (dict(bias=torch.rand(5)), ValueError, r'bias must be \[Cout\] = \[6\].*\(5,\)'),
    ],
)
def test_bad_input_is_named(changes, error, says):
    with pytest.raises(error, match=says):
        cond_conv2d(**arguments(**changes))


@pytest.mark.gpu
@pytest.mark.parametrize('kind', KINDS)
@given(data=st.data())
def test_cuda_equals_cpu(kind, data):
    case = data.draw(layers(kind))
    how = (case['stride'], case['padding'], case['dilation'], case['groups'])
    here = [t if t is None else t.double().requires_grad_() for t in tensors(case)]
    there = [t if t is None else t.detach().cuda().requires_grad_() for t in here]
    y, expected = cond_conv2d(*there, *how), cond_conv2d(*here, *how)
    torch.testing.assert_close(y.cpu(), expected)
    with torch.autocast('cuda', torch.bfloat16):
        rounded = cond_conv2d(*(t if t is None else t.detach().float() for t in there), *how)
    assert rounded.dtype == torch.bfloat16
    bound = 0.03 * expected.abs().amax() if expected.numel() else 0
    torch.testing.assert_close(rounded.cpu().double(), expected, rtol=0, atol=float(bound) + 1e-6)
    y.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(there, here):
        if mine is not None:
            torch.testing.assert_close(mine.grad.cpu(), theirs.grad)


def test_calls_of_the_same_shapes_inside_autocast_and_outside():
    x, routing, weight = torch.randn(2, 4, 5, 5), torch.rand(2, 3), torch.randn(3, 6, 4, 1, 1)
    for _ in range(2):
        assert cond_conv2d(x, routing, weight).dtype == torch.float32
        with torch.autocast('cpu', torch.bfloat16):
            assert cond_conv2d(x, routing, weight).dtype == torch.bfloat16


def test_images_of_ever_new_sizes_leave_little_behind(monkeypatch):
    monkeypatch.setattr(MODULE, 'MOST_PLANS', 3)
    routing, weight = torch.rand(1, 3), torch.randn(3, 6, 4, 3, 3)
    for side in range(3, 13):
        assert cond_conv2d(torch.randn(1, 4, side, side), routing, weight).shape[2] == side - 2
        assert len(MODULE._plans) <= 3
