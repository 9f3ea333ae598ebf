import pytest
import timm
import torch
import torchvision

from condconv_det.backbones import CondConvMnasNet
from condconv_det.layers import RoutedBlock


def timm_maps(model, x):
    x = model.bn1(model.conv_stem(x))
    maps = []
    for stage in model.blocks:
        x = stage(x)
        maps.append(x)
    return [*maps, model.bn2(model.conv_head(x))]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('arch, name', [('a1', 'semnasnet_100'), ('b1', 'mnasnet_100')])
def test_static_network_is_timms(arch, name, training, settle, copy_in_order, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    theirs = timm.create_model(name, pretrained=False)
    theirs.reset_classifier(0)
    ours = CondConvMnasNet(arch, out_indices=range(8))
    copy_in_order(settle(theirs, x), ours)
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_same_maps(ours(x), timm_maps(theirs, x))


@pytest.mark.parametrize('widen_factor', [0.5, 0.75, 1.0, 1.3])
def test_every_width_of_b1_is_torchvisions(widen_factor, settle, copy_in_order, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    theirs = settle(torchvision.models.MNASNet(widen_factor).layers, x)
    ours = CondConvMnasNet('b1', widen_factor, out_indices=(7,))
    copy_in_order(theirs, ours)
    ours.eval()
    with torch.no_grad():
        assert_same_maps(ours(x), [theirs(x)])


@pytest.mark.parametrize('arch, routed', [('a1', 6), ('b1', 7)])
def test_the_last_three_stages_are_routed(arch, routed):
    model = CondConvMnasNet(arch, cond_cfg=dict(num_experts=2, share='block'))
    blocks = [block for block in model.modules() if isinstance(block, RoutedBlock)]
    assert [block.router is not None for block in blocks].count(True) == routed
    assert model.layer5[0].router is not None and model.layer4[-1].router is None
