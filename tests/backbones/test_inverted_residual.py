import torch

from condconv_det.backbones.inverted_residual import RoutedInvertedResidual


def test_in_training_some_examples_pass_a_block_by():
    block = RoutedInvertedResidual(4, 4, 8, drop_path_rate=0.5, norm_cfg=dict(type='BN')).train()
    x = torch.randn(32, 4, 6, 6)
    y, _ = block(x)
    passed = (y == x).flatten(1).all(1)
    assert 4 < passed.sum() < 28
    y, _ = block.eval()(x)
    assert not (y == x).flatten(1).all(1).any()
