"""`torch.func`'s transforms through every kernel, in float64, against autograd and loops."""

import pytest
import torch
from kernel_paths import ALL_PATHS, forced
from torch.func import grad, vjp, vmap

from condconv_det.ops import cond_conv2d

# kernel's side, groups
GEOMETRY = {'pointwise': (1, 1), 'dense': (3, 1), 'grouped': (3, 2), 'depthwise': (3, 4)}
EAGER_PATHS = [pair for pair in ALL_PATHS if pair[1] != 'patches']  # which is for compilers


@pytest.fixture
def tensors(request):
    """x, routing and weight of a kind of layer."""
    side, groups = GEOMETRY[request.param]
    shapes = (4, 4, 5, 5), (4, 3), (3, 4, 4 // groups, side, side)
    return [torch.randn(*shape, dtype=torch.float64) for shape in shapes]


def loss(x, routing, weight):
    groups = x.shape[1] // weight.shape[2]
    return cond_conv2d(x, routing, weight, padding=weight.shape[-1] // 2, groups=groups).sin().sum()


def each(function, *tensors):
    """A function of single examples, called for each."""
    results = [function(*(tensor[index] for tensor in tensors)) for index in range(len(tensors[0]))]
    return tuple(map(torch.stack, zip(*results)))


@pytest.mark.parametrize('tensors, path', EAGER_PATHS, indirect=['tensors'])
def test_grad_is_autograds_and_so_is_the_gradient_of_a_gradient(tensors, path):
    def penalty(*tensors):
        return sum(g.square().sum() for g in grad(loss, (0, 1, 2))(*tensors))

    leaves = [tensor.requires_grad_() for tensor in tensors]
    with forced(path):
        first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        leaves = [leaf.detach() for leaf in leaves]
        torch.testing.assert_close(grad(loss, (0, 1, 2))(*leaves), first)
        torch.testing.assert_close(grad(penalty, (0, 1, 2))(*leaves), second)


@pytest.mark.parametrize('tensors, path', EAGER_PATHS, indirect=['tensors'])
def test_gradients_of_each_example_are_those_of_a_loop(tensors, path):
    x, routing, weight = tensors

    def gradients(image, weights):
        return grad(loss, (0, 1, 2))(image[None], weights[None], weight)

    with forced(path):
        expected = each(gradients, x, routing)
        torch.testing.assert_close(vmap(gradients)(x, routing), expected)


@pytest.mark.parametrize('batched', ['x', 'routing', 'weight'])
@pytest.mark.parametrize('tensors, path', EAGER_PATHS, indirect=['tensors'])
def test_any_of_the_inputs_may_be_one_of_many(tensors, path, batched):
    """As the weights of an ensemble are."""
    index = ('x', 'routing', 'weight').index(batched)
    many = torch.randn(3, *tensors[index].shape, dtype=torch.float64)

    def gradients(one):
        inputs = [*tensors[:index], one, *tensors[index + 1 :]]
        value, pull_back = vjp(loss, *inputs)
        return value, *pull_back(torch.ones_like(value))

    with forced(path):
        torch.testing.assert_close(vmap(gradients)(many), each(gradients, many))
        plain = vmap(lambda one: loss(*tensors[:index], one, *tensors[index + 1 :]))(many)
        torch.testing.assert_close(plain, vmap(gradients)(many)[0])
