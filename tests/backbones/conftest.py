import pytest
import torch


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
def copy_in_order():
    return _copy_in_order


@pytest.fixture
def assert_same_maps():
    return _assert_same_maps
