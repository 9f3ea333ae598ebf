"""First and second gradients of every kernel, and what is kept for them."""

import gc

import pytest
import torch
from kernel_paths import ALL_PATHS, forced
from random_layers import loop_over_examples
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from condconv_det.ops import cond_conv2d

GEOMETRY = {
    'pointwise': dict(kernel=1, groups=1, padding=0),
    'dense': dict(kernel=3, groups=1, padding=1),
    'grouped': dict(kernel=2, groups=2, padding=1),
    'depthwise': dict(kernel=3, groups=4, padding='same'),
}


@pytest.mark.parametrize('bias_shape', [(4,), (3, 4)])
@pytest.mark.parametrize('batch', [1, 4])  # with fewer kernels than experts, and more
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
def test_long_kernels_have_the_gradients_of_short_ones(kind, path, monkeypatch):
    kernel, groups, padding = GEOMETRY[kind].values()
    torch.manual_seed(0)
    leaves = [
        torch.randn(4, 4, 4, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(4, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 4, 4 // groups, kernel, kernel, dtype=torch.float64, requires_grad=True),
    ]

    def gradients():
        with forced(path):
            loss = cond_conv2d(*leaves, padding=padding, groups=groups).sin().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        return *first, *torch.autograd.grad(first[1].square().sum(), leaves)

    expected, experts, bmm = gradients(), [], torch.bmm
    for name, value in dict(LONG=16, PART=8, SHORT=4).items():
        monkeypatch.setattr(f'condconv_det.ops.mixing.{name}', value)
    monkeypatch.setattr(torch, 'bmm', lambda a, b: experts.append(b.shape[2]) or bmm(a, b))
    torch.testing.assert_close(gradients(), expected)
    assert (5 in experts) == (path not in ('outputs', 'products'))


@pytest.mark.parametrize('kind, path', ALL_PATHS)
def test_gradients_of_gradients_where_routing_depends_on_x(kind, path):
    """As in a layer with a router: of a penalty on the gradient, and of the loss beside it."""
    kernel, groups, padding = GEOMETRY[kind].values()
    torch.manual_seed(0)
    leaves = [
        torch.randn(4, 4, 5, 5, dtype=torch.float64, requires_grad=True),
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


# those that mix again in backward kernels that are more than the experts and larger than the image
MIXING_TWICE = [pair for pair in ALL_PATHS if pair[1] not in ('outputs', 'products', 'patches')]


@pytest.mark.parametrize('kind, path', MIXING_TWICE)
def test_gradients_do_not_depend_on_the_autocast_around_backward(kind, path):
    kernel, groups, padding = GEOMETRY[kind].values()
    leaves = [
        torch.randn(4, 4, 2, 2, requires_grad=True),
        torch.rand(4, 3, requires_grad=True),
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
        torch.randn(4, 4, 2, 2),  # smaller than kernels, which are then mixed again in backward
        torch.rand(4, 3),
        torch.randn(3, 4, 4 // groups, kernel, kernel),
    ]
    gradients, costs = [], []
    for wanted in ([needed], range(3)):
        leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
        with forced(path):
            y = cond_conv2d(*leaves, padding=padding, groups=groups)
        with FlopCounterMode(display=False) as counter:
            y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        costs.append(counter.get_total_flops())
        gradients.append([leaf.grad for leaf in leaves])
    assert costs[0] < costs[1]
    assert [grad is not None for grad in gradients[0]] == [i == needed for i in range(3)]
    torch.testing.assert_close(gradients[0][needed], gradients[1][needed])


def tensors_alive():
    """All that Python knows of."""
    return [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@pytest.mark.parametrize('batch', [4, 6])
def test_kernels_as_large_as_their_images_are_kept_if_no_more_than_experts(kind, path, batch):
    kernel, groups, padding = GEOMETRY[kind].values()
    weight = torch.randn(5, 4, 4 // groups, kernel, kernel, requires_grad=True)
    kept, before = [], {id(tensor) for tensor in tensors_alive()}
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t),
        forced(path),
    ):
        x, routing = torch.randn(batch, 4, 1, 2, requires_grad=True), torch.rand(batch, 5)
        y = cond_conv2d(x, routing, weight, torch.rand(4), padding=padding, groups=groups)
    channels = 4 + 3 * (path == 'grouped, padded')
    kernels = batch * channels * weight[0, 0].numel()
    found = [shape for shape in kept if shape.numel() == kernels]
    if batch < 5:
        assert bool(found) == (path not in ('one by one', 'outputs', 'products', 'patches'))
        return
    assert kept and max(shape.numel() for shape in kept) <= max(x.numel(), weight.numel())
    assert not found
    # nor on the context, where autograd's hooks do not look
    assert not [t for t in tensors_alive() if t.shape.numel() == kernels and id(t) not in before]
    y.sum().backward()


@pytest.mark.parametrize('kind, path', ALL_PATHS)
@pytest.mark.parametrize('side', [1, 5])  # with kernels that are larger than the image, and smaller
def test_what_follows_may_write_over_the_outputs(kind, path, side):
    kernel, groups, padding = GEOMETRY[kind].values()
    weight = torch.randn(3, 4, 4 // groups, kernel, kernel, requires_grad=True)
    with forced(path):
        x = torch.randn(4, 4, side, side)
        y = cond_conv2d(x, torch.rand(4, 3), weight, padding=padding, groups=groups)
    F.relu(y, inplace=True).sum().backward()
    assert weight.grad.any()
