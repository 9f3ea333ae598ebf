import pytest
import torch
from mmdet.models.backbones import ResNet

from condconv_det.backbones import CondConvResNet
from condconv_det.layers import CondConv2d


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(depth=18),
        dict(depth=50),
        dict(depth=50, style='caffe', deep_stem=True, avg_down=True, dilations=(1, 1, 1, 2)),
        dict(
            depth=50,
            plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')],
        ),
    ],
    ids=['18', '50', 'caffe, deep stem', 'plugin'],
)
def test_static_network_is_mmdets(arguments, training, settle, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    arguments = dict(base_channels=16, norm_eval=False, **arguments)
    theirs, ours = settle(ResNet(**arguments), x), CondConvResNet(**arguments)
    ours.load_state_dict(theirs.state_dict())
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_same_maps(ours(x), theirs(x))


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_every_depth_has_mmdets_parameters(depth):
    with torch.device('meta'):
        ours, theirs = CondConvResNet(depth), ResNet(depth)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize('depth, per_block', [(18, 2), (50, 3)])
def test_the_last_three_blocks_are_routed_downsampling_too(depth, per_block):
    model = CondConvResNet(depth, base_channels=16, cond_cfg=dict(num_experts=2))
    routed = [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]
    assert len(routed) == 3 * per_block + 1
    assert 'layer4.0.downsample.0' in routed
    assert {name.rsplit('.', 1)[0] for name in routed} <= (
        {'layer3.1', 'layer4.0', 'layer4.0.downsample', 'layer4.1', 'layer4.2'}
    )


@pytest.mark.parametrize('share', ['layer', 'block'])
@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
def test_plugins_stay_plain(position, share):
    out_channels = 512 if position == 'after_conv3' else 128
    plugin = dict(type='ConvModule', out_channels=out_channels, kernel_size=1)
    plugins = [dict(cfg=plugin, stages=(False, False, False, True), position=position)]
    cond_cfg = dict(num_experts=2, share=share)
    model = CondConvResNet(50, base_channels=16, plugins=plugins, cond_cfg=cond_cfg)
    routed = [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]
    assert len(routed) == 10 and not any('conv_block' in name for name in routed)
    assert model(torch.randn(2, 3, 64, 64))[-1].shape == (2, 512, 2, 2)


@pytest.mark.parametrize('zero_init_residual', [True, False])
@pytest.mark.parametrize('depth, last_norm', [(18, 'bn2'), (50, 'bn3')])
def test_residual_branches_start_at_zero_as_in_mmdet(depth, last_norm, zero_init_residual):
    arguments = dict(base_channels=16, zero_init_residual=zero_init_residual)
    for model in (ResNet(depth, **arguments), CondConvResNet(depth, **arguments)):
        model.init_weights()
        for name, value in model.named_parameters():
            if name.endswith(f'{last_norm}.weight') and 'layer' in name:
                assert (value == 0).all() == zero_init_residual


def test_stages_that_no_output_needs_go_whatever_is_said_of_them():
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')
    model = CondConvResNet(
        50,
        base_channels=16,
        out_indices=(1, 2),
        frozen_stages=4,
        plugins=[dict(plugin, stages=(False, True, True, True))],
    )
    assert not hasattr(model, 'layer4')
    model.train()
    assert not [value for value in model.parameters() if value.requires_grad]
