import pytest
import torch
from mmdet.models.backbones import MobileNetV2

from condconv_det.backbones import CondConvMobileNetV2
from condconv_det.layers import CondConv2d


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('widen_factor', [0.35, 1.0, 1.4])
def test_static_network_is_mmdets(widen_factor, training, settle, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    arguments = dict(widen_factor=widen_factor, out_indices=tuple(range(8)))
    theirs, ours = settle(MobileNetV2(**arguments), x), CondConvMobileNetV2(**arguments)
    ours.load_state_dict(theirs.state_dict())
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_same_maps(ours(x), theirs(x))


def test_blocks_six_to_seventeen_and_the_last_convolution_are_routed():
    model = CondConvMobileNetV2(cond_cfg=dict(num_experts=2))
    routed = [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]
    assert routed[0] == 'layer3.2.expand_conv.conv' and routed[-1] == 'conv2.conv'
    assert len(routed) == 12 * 3 + 1


def test_the_last_convolution_counts_as_block_eighteen():
    model = CondConvMobileNetV2(cond_cfg=dict(num_experts=2, start=18))
    routed = [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]
    assert routed == ['conv2.conv']


def test_all_stages_but_the_last_convolution_can_be_frozen():
    model = CondConvMobileNetV2(frozen_stages=7)
    assert {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad} == {
        'conv2'
    }
    with pytest.raises(ValueError, match='frozen_stages must be in -1 to 7, got 8'):
        CondConvMobileNetV2(frozen_stages=8)
