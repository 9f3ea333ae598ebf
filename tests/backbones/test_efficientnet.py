import pytest
import timm
import torch
from mmdet.models.backbones import EfficientNet

from condconv_det.backbones import CondConvEfficientNet

TIMM = {
    'tf_efficientnet_cc_b0_4e': dict(arch='b0', cond_cfg=dict(num_experts=4)),
    'tf_efficientnet_cc_b0_8e': dict(arch='b0', cond_cfg=dict(num_experts=8)),
    'tf_efficientnet_cc_b1_8e': dict(arch='b0-8e-depth'),
}


def timm_maps(model, x):
    """Every map of a timm EfficientNet, by mmdet's stages, which end where the stride changes."""
    x = model.bn1(model.conv_stem(x))
    maps = [x]
    for index, stage in enumerate(model.blocks):
        x = stage(x)
        if index not in (3, 5):  # the first half of a stage of mmdet's
            maps.append(x)
    return [*maps, model.bn2(model.conv_head(x))]


@pytest.fixture(scope='module', params=TIMM)
def pair(request):
    theirs = timm.create_model(request.param, pretrained=False)
    theirs.reset_classifier(0)
    ours = CondConvEfficientNet(out_indices=range(7), **TIMM[request.param])
    return ours, theirs


@pytest.mark.parametrize('training', [False, True])
# where sides are even, TensorFlow pads on one side alone
@pytest.mark.parametrize('size', [(128, 97), pytest.param((97, 128), marks=pytest.mark.long)])
def test_routed_network_equals_timms(pair, size, training, settle, copy_in_order, assert_same_maps):
    x = torch.randn(2, 3, *size)
    ours, theirs = pair
    copy_in_order(settle(theirs, x), ours)
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_same_maps(ours(x), timm_maps(theirs, x))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('arch', ['b0', 'b3'])
def test_static_network_is_mmdets(arch, training, settle, assert_same_maps):
    x = torch.randn(2, 3, 97, 128)
    arguments = dict(arch=arch, out_indices=(1, 2, 3, 4, 5, 6))
    theirs, ours = settle(EfficientNet(**arguments), x), CondConvEfficientNet(**arguments)
    ours.load_state_dict(theirs.state_dict())
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_same_maps(ours(x), theirs(x))


@pytest.mark.parametrize('arch', [f'b{scale}' for scale in range(8)])
def test_every_scale_has_mmdets_parameters(arch, monkeypatch):
    monkeypatch.setattr(
        torch.Tensor, 'normal_', lambda tensor, *_, **__: tensor
    )  # shapes are enough
    ours, theirs = CondConvEfficientNet(arch=arch), EfficientNet(arch=arch)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize('name, millions', zip(TIMM, (13.314116, 24.013284, 39.715968)))
def test_parameters_are_timms_to_the_last_one(name, millions):
    with torch.device('meta'):
        backbone = CondConvEfficientNet(**TIMM[name])
    classifier = 1280 * 1000 + 1000
    total = sum(parameter.numel() for parameter in backbone.parameters()) + classifier
    assert total == round(millions * 1e6)


@pytest.mark.parametrize('arch, blocks', [('b0', 8), ('b1', 11), ('b3', 13), ('b7', 27)])
def test_the_last_three_stages_are_routed(arch, blocks):
    with torch.device('meta'):
        model = CondConvEfficientNet(arch=arch, cond_cfg=dict(num_experts=2))
    routed = [name for name, block in model.named_modules() if getattr(block, 'router', None)]
    assert len(routed) == blocks


def test_drop_path_grows_with_depth_as_in_mmdet():
    arguments = dict(arch='b1', drop_path_rate=0.2)
    rates = [
        [
            block.drop_path.drop_prob
            for block in model.modules()
            if hasattr(block, 'drop_path') and hasattr(block.drop_path, 'drop_prob')
        ]
        for model in (CondConvEfficientNet(**arguments), EfficientNet(**arguments))
    ]
    assert rates[0] == rates[1] and max(rates[0]) == pytest.approx(0.2)
