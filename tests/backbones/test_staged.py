import pytest
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from condconv_det.backbones import CondConvMobileNetV1
from condconv_det.layers import CondConv2d, RoutedBlock


def test_frozen_stages_stay_in_eval_mode_while_the_others_train():
    model = CondConvMobileNetV1(0.25, frozen_stages=1, cond_cfg=dict(num_experts=2))
    for _ in range(2):
        model.train()
        training = {
            name.split('.')[0]: module.training
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm)
        }
        assert training == {
            'conv1': False, 'layer1': False, 'layer2': True, 'layer3': True, 'layer4': True,
            'layer5': True,
        }  # fmt: skip


def routed_blocks(**cfg):
    model = MODELS.build(dict(cfg, cond_cfg=dict(num_experts=2)))
    return [
        name
        for name, block in model.named_modules()
        if isinstance(block, RoutedBlock)
        and any(isinstance(layer, CondConv2d) for layer in block.modules())
    ]


@pytest.mark.parametrize(
    'cfg, routed',
    [
        (
            dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(0, 1)),
            ['layer1.0', 'layer2.0', 'layer2.1'],
        ),
        (
            dict(type='CondConvMobileNetV2', widen_factor=0.25, out_indices=(1,)),
            ['layer1.0', 'layer2.0', 'layer2.1'],
        ),
        (
            dict(type='CondConvMobileNetV3', arch='small', out_indices=(2, 4)),
            ['layer2', 'layer3', 'layer4'],
        ),
        (
            dict(type='CondConvMnasNet', widen_factor=0.25, out_indices=(2,)),
            ['layer3.0', 'layer3.1', 'layer3.2'],
        ),
        (
            dict(type='CondConvEfficientNet', arch='b0', out_indices=(3,)),
            ['layers.2.1', 'layers.3.0', 'layers.3.1'],
        ),
        (
            dict(type='CondConvResNet', depth=50, base_channels=8, out_indices=(0, 1, 2)),
            ['layer3.3', 'layer3.4', 'layer3.5'],
        ),
        # the paper's last three blocks, of which one is built
        (
            dict(type='CondConvResNet', depth=18, base_channels=8, out_indices=(2,)),
            ['layer3.1'],
        ),
        (
            dict(type='CondConvResNet', depth=18, base_channels=8, out_indices=(0,)),
            ['layer1.0', 'layer1.1'],
        ),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else None,
)
def test_of_a_network_that_ends_before_its_default_start_the_last_blocks_are_routed(cfg, routed):
    assert routed_blocks(**cfg) == routed


@pytest.mark.parametrize('name', ['CondConvMobileNetV3', 'CondConvEfficientNet'])
def test_the_stem_alone_has_nothing_to_route(name):
    with pytest.raises(ValueError, match='out_indices needs no block that could be routed'):
        routed_blocks(type=name, out_indices=(0,))
