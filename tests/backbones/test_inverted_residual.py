import pytest
import torch
from mmdet.models.layers import InvertedResidual

from condconv_det.backbones.inverted_residual import RoutedInvertedResidual


def test_in_training_some_examples_pass_a_block_by():
    block = RoutedInvertedResidual(4, 4, 8, drop_path_rate=0.5, norm_cfg=dict(type='BN')).train()
    x = torch.randn(32, 4, 6, 6)
    y = block(x)
    passed = (y == x).flatten(1).all(1)
    assert 4 < passed.sum() < 28
    y = block.eval()(x)
    assert not (y == x).flatten(1).all(1).any()


SE = dict(channels=8, ratio=4)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(
    'arguments',
    [
        (8, 8, 8),  # an expansion to as many channels
        (8, 6, 8, 5, 2, SE, False),
        (8, 8, 8, 3, 1, None, False),
        (4, 6, 8, 3, 1, SE),
    ],
    ids=str,
)
def test_static_block_is_mmdets(arguments, with_cp):
    theirs = InvertedResidual(*arguments)
    ours = RoutedInvertedResidual(*arguments, with_cp=with_cp)
    ours.load_state_dict(theirs.state_dict())
    results = []
    for block in (ours, theirs):
        x = torch.linspace(-1, 1, 2 * arguments[0] * 49).view(2, -1, 7, 7).requires_grad_()
        y = block(x)
        y.square().sum().backward()
        results.append([y, x.grad, *(value.grad for value in block.parameters())])
    for mine, his in zip(*results, strict=True):
        torch.testing.assert_close(mine, his)
