import gc
import inspect
from abc import ABCMeta
from unittest.mock import patch

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_paths import ALL_PATHS, MODULE, forced
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from condconv_det.ops import cond_conv2d
from condconv_det.ops import kernels as kernels_module
from condconv_det.ops.kernels import (
    GroupedConv,
    GroupedPatches,
    Kernel,
    Matmul,
    OneByOne,
    TritonMatmul,
)


def loop_over_examples(x, routing, weight, bias, stride, padding, dilation, groups):
    """The paper's equation, one plain convolution an example, in float64."""
    x, routing, weight = x.double(), routing.double(), weight.double()
    outs = []
    for image, weights in zip(x, routing):
        kernel = sum(r * w for r, w in zip(weights, weight))
        if bias is None or bias.dim() == 1:
            mixed_bias = None if bias is None else bias.double()
        else:
            mixed_bias = sum(r * b for r, b in zip(weights, bias.double()))
        outs.append(F.conv2d(image[None], kernel, mixed_bias, stride, padding, dilation, groups))
    if outs:
        return torch.cat(outs)
    shape = F.conv2d(
        x.new_zeros(1, *x.shape[1:]), weight[0], None, stride, padding, dilation, groups
    )
    return x.new_zeros(0, *shape.shape[1:])


# groups, output channels per group, input channels per group
KINDS = {
    'pointwise': [(1, 3, 2), (1, 1, 1), (1, 5, 4)],
    'dense': [(1, 3, 2), (1, 1, 1), (1, 5, 4)],
    'grouped': [(2, 2, 3), (3, 1, 2), (2, 1, 1)],
    'depthwise': [(6, 1, 1), (3, 2, 1), (1, 1, 1)],
}


@st.composite
def layers(draw, kind):
    """Arguments of cond_conv2d, and how x and weight lie in memory."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    pointwise = kind == 'pointwise'
    groups, multiplier, depth = draw(st.sampled_from(KINDS[kind]))
    kernel = (1, 1) if pointwise else pair(1, 4)
    dilation = pair(1, 2)
    return dict(
        batch=draw(st.sampled_from([3, 2, 4, 1, 0])),
        experts=draw(st.integers(1, 5)),
        in_channels=groups * depth,
        out_channels=groups * multiplier,
        kernel=kernel,
        size=tuple(
            (k - 1) * d + 1 + more for k, d, more in zip(kernel, dilation, pair(0, 5), strict=True)
        ),
        stride=draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (3, 1)])),
        padding=(0, 0) if pointwise else pair(0, 2),
        dilation=dilation,
        groups=groups,
        bias=draw(st.sampled_from([None, 'shared', 'mixed'])),
        layout=draw(st.sampled_from(['contiguous', 'channels_last', 'sliced'])),
        reversed_weight=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def tensors(case):
    torch.manual_seed(case['seed'])
    batch, (height, width) = case['batch'], case['size']
    x = torch.randn(batch, case['in_channels'], height, width)
    if case['layout'] == 'channels_last':
        x = x.to(memory_format=torch.channels_last)
    elif case['layout'] == 'sliced':
        x = torch.randn(batch, case['in_channels'] + 2, height, width * 2)[:, 1:-1, :, ::2]
    routing = torch.randn(batch, case['experts'])
    weight = torch.randn(
        case['experts'],
        case['out_channels'],
        case['in_channels'] // case['groups'],
        *case['kernel'],
    )
    if case['reversed_weight']:
        weight = weight.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    bias = {
        None: None,
        'shared': torch.randn(case['out_channels']),
        'mixed': torch.randn(case['experts'], case['out_channels']),
    }[case['bias']]
    return x, routing, weight, bias


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=20, deadline=None)
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


GEOMETRY = {
    'pointwise': dict(kernel=1, groups=1, padding=0),
    'dense': dict(kernel=3, groups=1, padding=1),
    'grouped': dict(kernel=2, groups=2, padding=1),
    'depthwise': dict(kernel=3, groups=4, padding='same'),
}


@pytest.mark.parametrize('bias_shape', [(4,), (3, 4)])
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('kind, path', ALL_PATHS)
def test_first_and_second_gradients_in_float64(kind, path, batch, bias_shape):
    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    kernel, groups, padding = GEOMETRY[kind].values()
    inputs = (
        leaf(batch, 4, 4, 4),
        leaf(batch, 3),
        leaf(3, 4, 4 // groups, kernel, kernel),
        leaf(*bias_shape),
    )

    def layer(*inputs):
        return cond_conv2d(*inputs, stride=2, padding=padding, groups=groups)

    with forced(path):
        assert gradcheck(layer, inputs, fast_mode=True)
        assert gradgradcheck(layer, inputs, fast_mode=True)


@pytest.mark.parametrize('kind, path', ALL_PATHS)
def test_gradients_of_gradients_where_routing_depends_on_x(kind, path):
    """As in a layer with a router: of a penalty on the gradient, and of the loss beside it."""
    kernel, groups, padding = GEOMETRY[kind].values()
    torch.manual_seed(0)
    leaves = [
        torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 4, 4 // groups, kernel, kernel, dtype=torch.float64, requires_grad=True),
    ]

    def gradients(convolve, penalised):
        x, router, weight = leaves
        routing = (x.mean((2, 3)) @ router).sigmoid()
        loss = convolve(x, routing, weight, None, 1, padding, 1, groups).sin().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=penalised)
        if not penalised:
            return first
        return *first, *torch.autograd.grad(first[0].square().sum(), leaves)

    expected = gradients(loop_over_examples, penalised=True)
    with forced(path):
        torch.testing.assert_close(gradients(cond_conv2d, penalised=True), expected)
        torch.testing.assert_close(gradients(cond_conv2d, penalised=False), expected[:3])


@pytest.mark.parametrize('kind, path', [pair for pair in ALL_PATHS if pair[1] != 'patches'])
def test_gradients_do_not_depend_on_the_autocast_around_backward(kind, path):
    kernel, groups, padding = GEOMETRY[kind].values()
    leaves = [
        torch.randn(2, 4, 5, 5, requires_grad=True),
        torch.rand(2, 3, requires_grad=True),
        torch.randn(3, 4, 4 // groups, kernel, kernel, requires_grad=True),
    ]
    with forced(path):
        loss = cond_conv2d(*leaves, padding=padding, groups=groups).sin().sum()
    expected = torch.autograd.grad(loss, leaves, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        found = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@pytest.mark.parametrize('needed', range(3))
def test_only_the_gradients_that_are_needed_are_computed(kind, path, needed):
    kernel, groups, padding = GEOMETRY[kind].values()
    tensors = [
        torch.randn(2, 4, 6, 6),
        torch.rand(2, 3),
        torch.randn(3, 4, 4 // groups, kernel, kernel),
    ]
    gradients = []
    for wanted in ([needed], range(3)):
        leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
        with forced(path):
            y = cond_conv2d(*leaves, padding=padding, groups=groups)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        gradients.append([leaf.grad for leaf in leaves])
    assert [grad is not None for grad in gradients[0]] == [i == needed for i in range(3)]
    torch.testing.assert_close(gradients[0][needed], gradients[1][needed])


def tensors_alive():
    """All that Python knows of."""
    return [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]


@pytest.mark.parametrize('kind, path', ALL_PATHS)
def test_no_kernel_per_example_is_kept_for_backward(kind, path):
    kernel, groups, padding = GEOMETRY[kind].values()
    weight = torch.randn(5, 4, 4 // groups, kernel, kernel, requires_grad=True)
    kept, before = [], {id(tensor) for tensor in tensors_alive()}
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t),
        forced(path),
    ):
        x = torch.randn(3, 4, 7, 7, requires_grad=True)
        y = cond_conv2d(x, torch.rand(3, 5), weight, torch.rand(4), padding=padding, groups=groups)
    assert kept and max(shape.numel() for shape in kept) <= max(x.numel(), weight.numel())
    kernels = 3 * weight[0].numel()
    assert not [shape for shape in kept if shape.numel() == kernels]
    # nor on the context, where autograd's hooks do not look
    assert not [t for t in tensors_alive() if t.shape.numel() == kernels and id(t) not in before]
    y.sum().backward()


ONE, TWO = (1, 1), (2, 2)


SHAPES = pytest.mark.parametrize(
    'x, weight, stride, groups, kernel',
    [
        ((8, 512, 19, 19), (8, 512, 512, 1, 1), ONE, 1, Matmul()),
        ((8, 1024, 10, 10), (8, 1024, 1024, 1, 1), ONE, 1, Matmul(block=192)),
        ((1, 1024, 10, 10), (8, 1024, 1024, 1, 1), ONE, 1, Matmul()),
        ((24, 1024, 38, 38), (8, 1024, 1024, 1, 1), ONE, 1, Matmul()),
        ((8, 512, 19, 19), (8, 512, 1, 3, 3), ONE, 512, GroupedConv(ONE, ONE, ONE, 512)),
        ((8, 64, 38, 38), (8, 64, 64, 3, 3), TWO, 1, GroupedConv(TWO, ONE)),
        ((8, 64, 5, 5), (8, 128, 64, 3, 3), TWO, 1, Matmul(TWO, ONE)),
        ((8, 256, 5, 5), (8, 512, 256, 3, 3), ONE, 1, Matmul(ONE, ONE, block=85)),
        ((24, 512, 5, 5), (8, 512, 512, 3, 3), ONE, 1, Matmul(ONE, ONE, block=48)),
        ((8, 512, 14, 14), (8, 512, 512, 3, 3), ONE, 1, OneByOne(ONE, ONE)),
        ((1, 512, 14, 14), (8, 512, 512, 3, 3), ONE, 1, GroupedConv(ONE, ONE)),
    ],
)


@SHAPES
def test_shapes_that_reach_each_kernel(x, weight, stride, groups, kernel):
    padding = (weight[3] // 2, weight[4] // 2)
    x, weight = torch.empty(x), torch.empty(1).expand(weight)
    assert MODULE.choose_kernel(x, weight, stride, padding, ONE, groups) == kernel


def test_no_kernel_is_without_a_shape():
    kernels = {
        each
        for each in vars(kernels_module).values()
        if type(each) is ABCMeta and issubclass(each, Kernel) and not inspect.isabstract(each)
    }
    reached = {type(shape[-1]) for shape in SHAPES.args[1]}
    # these two where there is a GPU or a compiler, below
    assert reached | {TritonMatmul, GroupedPatches} == kernels


def test_triton_is_chosen_where_it_pays():
    with patch.object(MODULE.triton_matmul, 'pays', return_value=True):
        kernel = MODULE.choose_kernel(
            torch.empty(2, 8, 9, 9), torch.empty(4, 8, 8, 3, 3), TWO, ONE, ONE, 1
        )
    assert kernel == TritonMatmul(TWO, ONE, ONE)


def test_a_compiler_meets_no_convolution_whose_groups_are_the_batch():
    with patch.object(MODULE, 'is_compiling', return_value=True):
        dense = MODULE.choose_kernel(
            torch.empty(24, 256, 38, 38), torch.empty(8, 512, 256, 3, 3), ONE, ONE, ONE, 1
        )
        depthwise = MODULE.choose_kernel(
            torch.empty(4, 8, 9, 9), torch.empty(2, 8, 1, 3, 3), ONE, ONE, ONE, 8
        )
    assert dense == Matmul(ONE, ONE)
    assert depthwise == GroupedPatches(ONE, ONE, ONE, 8)


def test_what_follows_may_write_over_the_outputs():
    x, weight = torch.randn(2, 4, 5, 5), torch.randn(3, 4, 4, 1, 1, requires_grad=True)
    F.relu(cond_conv2d(x, torch.rand(2, 3), weight), inplace=True).sum().backward()
    assert weight.grad.any()


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
        (dict(padding='full'), ValueError, "padding must be .* got 'full'"),
        (dict(bias=torch.rand(5)), ValueError, r'bias must be \[Cout\] = \[6\].*\(5,\)'),
    ],
)
def test_bad_input_is_named(changes, error, says):
    with pytest.raises(error, match=says):
        cond_conv2d(**arguments(**changes))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_cuda_equals_cpu(kind, data):
    case = data.draw(layers(kind))
    how = (case['stride'], case['padding'], case['dilation'], case['groups'])
    here = [t if t is None else t.double().requires_grad_() for t in tensors(case)]
    there = [t if t is None else t.detach().cuda().requires_grad_() for t in here]
    y, expected = cond_conv2d(*there, *how), cond_conv2d(*here, *how)
    torch.testing.assert_close(y.cpu(), expected)
    y.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(there, here):
        if mine is not None:
            torch.testing.assert_close(mine.grad.cpu(), theirs.grad)
