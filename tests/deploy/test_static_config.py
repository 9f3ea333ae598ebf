"""The static config of each routed config that we ship is its static twin."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit

from condconv_det.analysis.configs import build_model
from condconv_det.deploy import freeze_routing
from condconv_det.deploy.freeze_routing import routed_layers
from condconv_det.deploy.static_config import static_config

CONFIGS = Path(__file__).parents[2] / 'configs'
PAIRS = {
    routed: twin
    for routed in sorted(CONFIGS.glob('*/*-condconv-e*.py'))
    if (twin := routed.with_name(re.sub(r'-condconv-e\d(-everywhere)?', '', routed.name))).is_file()
}
QUICK = ('shapes/ssd128', 'shapes/retina', 'rtmdet/', 'imagenet/efficientnet-b0-depth')


def plain(node):
    """As lists and dicts, without `conv_cfg=None`, which is every module's default here."""
    if isinstance(node, dict):
        return {
            key: plain(value)
            for key, value in node.items()
            if not (key == 'conv_cfg' and value is None)
        }
    return [plain(value) for value in node] if isinstance(node, list | tuple) else node


def build(cfg):
    return build_model(cfg)


def is_quick(path):
    return str(path.relative_to(CONFIGS)).startswith(QUICK)


@pytest.mark.parametrize(
    'routed',
    [pytest.param(path, marks=() if is_quick(path) else pytest.mark.long) for path in PAIRS],
    ids=lambda path: path.stem,
)
def test_it_is_the_twin_that_was_written_by_hand(routed, shapes_alone):
    cfg, twin = Config.fromfile(routed), Config.fromfile(PAIRS[routed])
    before = cfg.pretty_text
    found = static_config(cfg, build(cfg))
    assert cfg.pretty_text == before
    assert found.pop('resume', None) in (None, False) and found.pop('load_from', None) is None
    for key in ('resume', 'load_from'):
        twin.pop(key, None)
    if 'custom_imports' not in found:  # RTMDet's network is mmdet's
        assert 'CondConv' not in str(found) and routed.parent.name == 'rtmdet'
        for key in ('custom_hooks', 'custom_imports'):
            found.pop(key, None)
            twin.pop(key)
    assert plain(found.to_dict()) == plain(twin.to_dict())


def test_there_are_pairs_of_every_kind():
    assert len(PAIRS) > 20 and sum(map(is_quick, PAIRS)) >= 4


@pytest.fixture
def any_detector(tmp_path):
    """A detector of mmdet, all of whose parts are switched as docs/switching.md has it."""
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
        "custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)\n"
        "conv_cfg = dict(type='CondConv2d', num_experts=2, init='one-kernel')\n"
        'model = dict(\n'
        '    backbone=dict(conv_cfg=conv_cfg, init_cfg=None),\n'
        '    neck=dict(conv_cfg=conv_cfg),\n'
        '    bbox_head=dict(conv_cfg=conv_cfg),\n'
        ')\n'
        "custom_hooks = [dict(type='FiniteLossHook'), dict(type='NumClassCheckHook')]\n"
        "default_hooks = dict(routing=dict(type='RoutingHook'))\n"
        'optim_wrapper = dict(\n'
        "    constructor='CondConvOptimWrapperConstructor',\n"
        "    paramwise_cfg=dict(expert_lr_mult='matched', norm_decay_mult=0.0),\n"
        ')\n'
        "load_from = 'routed.pth'\n"
    )
    return Config.fromfile(config)


def test_of_a_detector_of_mmdet_plain_mmdet_is_left(any_detector, tmp_path, shapes_alone):
    model = build(any_detector)
    static = static_config(any_detector, model)
    static.dump(tmp_path / 'static.py')
    text = (tmp_path / 'static.py').read_text()
    assert 'condconv' not in text.lower()
    assert 'expert' not in text and 'routed.pth' not in text

    read = Config.fromfile(tmp_path / 'static.py')
    assert plain(read.custom_hooks) == [dict(type='NumClassCheckHook')]
    assert 'routing' not in read.default_hooks
    assert dict(read.optim_wrapper.paramwise_cfg) == dict(norm_decay_mult=0.0)
    network = build(read)
    assert all(
        type(module).__module__.split('.')[0] != 'condconv_det' for module in network.modules()
    )
    even = {router: torch.full((2,), 0.5) for _, _, router in routed_layers(model)}
    network.load_state_dict(freeze_routing(model, even).state_dict())


def test_what_still_needs_this_package_imports_it(any_detector, shapes_alone):
    any_detector.val_evaluator.update(type='GroupedCocoMetric', group_by='domain')
    any_detector.work_dir = 'work_dirs/routed'
    static = static_config(any_detector, build(any_detector))
    assert 'work_dir' not in static
    assert static.custom_imports.imports == ['condconv_det']
    assert [hook.type for hook in static.custom_hooks] == ['FiniteLossHook', 'NumClassCheckHook']
    assert 'routing' not in static.default_hooks and 'constructor' not in static.optim_wrapper


def test_other_imports_stay(any_detector, shapes_alone):
    any_detector.custom_imports.imports = ['condconv_det', 'json']
    static = static_config(any_detector, build(any_detector))
    assert static.custom_imports.imports == ['json']


def test_a_backbone_whose_default_is_another_layer(shapes_alone):
    conv_cfg = dict(type='CondConv2d', num_experts=2, routing=dict(activation='softmax'))
    cfg = Config(dict(model=dict(type='CondConvMobileNetV1', conv_cfg=conv_cfg)))
    assert static_config(cfg, build(cfg)).model.conv_cfg is None  # pads by one, as it did
    cfg.model.conv_cfg = dict(conv_cfg, padding_mode='zeros')
    static = static_config(cfg, build(cfg))
    assert static.model.conv_cfg == dict(type='Conv2d', padding_mode='zeros')


def test_the_deeper_efficientnet_which_is_routed_without_a_cond_cfg(shapes_alone):
    cfg = Config(dict(model=dict(type='CondConvEfficientNet', arch='b0-8e-depth')))
    model, static = build(cfg), build(static_config(cfg, build(cfg)))
    even = {router: torch.full((8,), 0.5) for _, _, router in routed_layers(model)}
    expected = freeze_routing(model, even).state_dict()
    assert {key: value.shape for key, value in static.state_dict().items()} == {
        key: value.shape for key, value in expected.items()
    }


def test_a_config_that_names_classes_by_type(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        'from condconv_det.layers import CondConv2d\n'
        'from mmdet.models import FPN\n'
        'conv_cfg = dict(type=CondConv2d, num_experts=2)\n'
        'model = dict(type=FPN, in_channels=[8], out_channels=8, num_outs=1, conv_cfg=conv_cfg)\n'
    )
    cfg = Config.fromfile(config)
    static_config(cfg, build(cfg)).dump(tmp_path / 'static.py')
    network = build(Config.fromfile(tmp_path / 'static.py'))
    assert type(network).__name__ == 'FPN' and 'CondConv2d' not in str(network)


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_a_backbone_that_started_from_a_routed_one_can_be_trained_on(tmp_path, kind):
    cfg = Config(dict(model=dict(type='CondConvMobileNetV1', widen_factor=0.25)))
    cfg.model.cond_cfg = dict(num_experts=2)
    torch.save(build(cfg).state_dict(), tmp_path / 'routed.pth')
    cfg.model.init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'routed.pth'))
    model = build(cfg)
    model.init_weights()
    static = static_config(cfg, model)
    assert static.model.init_cfg is None
    build(static).init_weights()

    torch.save(build(static).state_dict(), tmp_path / 'static.pth')
    cfg.model.init_cfg.checkpoint = str(tmp_path / 'static.pth')
    kept = static_config(cfg, model).model.init_cfg.checkpoint
    assert kept == str(tmp_path / 'static.pth')
