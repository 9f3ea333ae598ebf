import pytest
import torch
import torchvision

from condconv_det.backbones import CondConvMobileNetV3
from condconv_det.layers import RoutedBlock


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('arch', ['small', 'large'])
def test_static_network_is_torchvisions(arch, training, settle, copy_in_order, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    theirs = settle(torchvision.models.get_model(f'mobilenet_v3_{arch}').features, x)
    ours = CondConvMobileNetV3(arch, out_indices=range(len(theirs)))
    copy_in_order(theirs, ours)
    ours.train(training)
    theirs.train(training)
    maps, features = [], x
    with torch.no_grad():
        for layer in theirs:
            features = layer(features)
            maps.append(features)
        assert_same_maps(ours(x), maps)


@pytest.mark.parametrize('arch, start, channels', [('small', 7, 40), ('large', 11, 80)])
def test_routing_starts_at_the_second_width_of_stride_sixteen(arch, start, channels):
    model = CondConvMobileNetV3(arch, cond_cfg=dict(num_experts=2, share='block'))
    routed = [name for name, block in model.named_modules() if getattr(block, 'router', None)]
    blocks = [block for block in model.modules() if isinstance(block, RoutedBlock)]
    assert routed == [f'layer{number}' for number in range(start, len(blocks) + 1)]
    assert blocks[start - 1].router.fc.in_features == channels


def test_every_layer_can_be_frozen_and_no_more():
    model = CondConvMobileNetV3('small', frozen_stages=12)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match='frozen_stages must be in -1 to 12, got 13'):
        CondConvMobileNetV3('small', frozen_stages=13)
