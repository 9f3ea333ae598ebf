import pytest
import torch
from torch import nn


@torch.no_grad()
def _settle(model, x):
    """Gives every norm random weights, and random statistics near those of what x brings it.

    Untrained, features fade to nothing on their way, and any two networks agree; with statistics
    far from their input's they explode, and rounding errors with them.
    """

    def set_statistics(norm, inputs):
        var, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.weight.uniform_(0.8, 1.2)
        norm.bias.normal_(std=0.1)
        norm.running_mean.copy_(mean + 0.1 * torch.randn_like(mean) * var.sqrt())
        norm.running_var.copy_(var * torch.empty_like(var).uniform_(0.8, 1.2))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(set_statistics) for norm in norms]
    model.eval()
    model(x)
    for hook in hooks:
        hook.remove()
    return model


def _copy_in_order(source, target):
    """Gives a network the weights of another one that lists the same tensors in the same order."""
    tensors, names = list(source.state_dict().values()), target.state_dict()
    assert len(tensors) == len(names)
    for tensor, (name, mine) in zip(tensors, names.items()):
        # timm's experts are rows of a matrix
        assert tensor.shape == mine.shape or (tensor.dim() == 2 and mine.dim() == 5), name
    target.load_state_dict(
        {name: tensor.reshape(mine.shape) for tensor, (name, mine) in zip(tensors, names.items())}
    )


def _assert_same_maps(mine, theirs):
    assert len(mine) == len(theirs)
    for my_map, their_map in zip(mine, theirs):
        assert their_map.std() > 0.1  # else anything would agree
        torch.testing.assert_close(
            my_map, their_map, rtol=0, atol=1e-4 * their_map.abs().max().item()
        )


@pytest.fixture
def settle():
    return _settle


@pytest.fixture
def copy_in_order():
    return _copy_in_order


@pytest.fixture
def assert_same_maps():
    return _assert_same_maps
