import pytest
import timm
import torch

from condconv_det.backbones import CondConvMobileNetV1
from condconv_det.layers import CondConv2d

E8 = dict(num_experts=8)


@pytest.mark.parametrize('cond_cfg', [None, E8])
@pytest.mark.parametrize('side, sides', [(300, (150, 75, 38, 19, 10)), (97, (49, 25, 13, 7, 4))])
def test_maps_have_the_sizes_of_tensorflows_same_padding(side, sides, cond_cfg):
    model = CondConvMobileNetV1(0.25, out_indices=(0, 1, 2, 3, 4), cond_cfg=cond_cfg)
    outs = model(torch.randn(1, 3, side, side))
    assert [tuple(out.shape[1:]) for out in outs] == [
        (channels, side, side) for channels, side in zip((16, 32, 64, 128, 256), sides)
    ]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(
    'name, widen_factor', [('mobilenetv1_100', 1.0), ('mobilenetv1_125', 1.25)]
)
def test_static_network_is_timms(
    name, widen_factor, training, settle, copy_in_order, assert_same_maps
):
    x = torch.randn(2, 3, 97, 128)
    theirs = timm.create_model(name, pretrained=False)
    theirs.reset_classifier(0)
    ours = CondConvMobileNetV1(widen_factor, out_indices=(0, 1, 2, 3, 4), conv_cfg=None)
    copy_in_order(settle(theirs, x), ours)
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        features, maps = theirs.bn1(theirs.conv_stem(x)), []
        for stage in theirs.blocks:
            features = stage(features)
            maps.append(features)
        assert_same_maps(ours(x), maps)


@pytest.mark.parametrize('start, count', [(None, 14), (1, 26), (13, 2)])
def test_blocks_from_start_on_are_routed(start, count):
    model = CondConvMobileNetV1(0.25, cond_cfg=dict(E8, **(dict(start=start) if start else {})))
    routed = [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]
    assert len(routed) == count
    if start is None:
        assert routed[0] == 'layer4.1.depthwise_conv.conv'  # block 7
