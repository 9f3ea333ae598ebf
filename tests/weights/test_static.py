import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.heads import CondConvClsHead
from condconv_det.layers import CondConv2d
from condconv_det.weights import static_file, static_weights

BACKBONES = {
    'CondConvMobileNetV1': dict(widen_factor=0.25),
    'CondConvMobileNetV2': dict(widen_factor=0.25),
    'CondConvMobileNetV3': dict(arch='small'),
    'CondConvMnasNet': dict(widen_factor=0.25),
    'CondConvEfficientNet': dict(arch='b0'),
    'CondConvResNet': dict(depth=18, base_channels=16),
}


def assert_same_weights(given, expected):
    assert given.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(given[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize('share, activation', [('layer', 'sigmoid'), ('block', 'softmax')])
@pytest.mark.parametrize('name', BACKBONES)
def test_static_weights_come_back_from_their_experts(name, share, activation):
    static = MODELS.build(dict(type=name, **BACKBONES[name])).state_dict()
    cond_cfg = dict(num_experts=8, share=share, routing=dict(activation=activation))
    routed = MODELS.build(dict(type=name, cond_cfg=cond_cfg, **BACKBONES[name]))
    routed.load_state_dict(static)
    assert_same_weights(static_weights(routed.state_dict(), activation), static)


def test_a_classifiers_matrix_comes_back_too():
    static = CondConvClsHead(10, 32).state_dict()
    routed = CondConvClsHead(10, 32, cond_cfg=dict(num_experts=8))
    routed.load_state_dict(static)
    assert_same_weights(static_weights(routed.state_dict()), static)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_a_static_layer_is_the_routed_one_whose_experts_weigh_the_same(activation):
    routed = CondConv2d(3, 4, 3, num_experts=4, routing=dict(activation=activation))
    nn.init.zeros_(routed.router.fc.weight)
    static = nn.Conv2d(3, 4, 3)
    static.load_state_dict(static_weights(routed.state_dict(), activation))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(static(x), routed(x), rtol=0, atol=1e-6)


def save_trained(path, cond_cfg):
    """What a training run of a detector leaves."""
    backbone = MODELS.build(
        dict(type='CondConvMobileNetV1', widen_factor=0.25, cond_cfg=cond_cfg)
    ).state_dict()
    torch.save(
        dict(
            meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b'))),
            state_dict={f'backbone.{key}': value for key, value in backbone.items()},
            optimizer=dict(state=dict(step=torch.ones(1))),
        ),
        path,
    )


def test_the_tool_writes_a_static_checkpoint_that_keeps_the_classes(run_tool, tmp_path, capsys):
    source, dest = tmp_path / 'epoch_3.pth', tmp_path / 'static.pth'
    save_trained(source, dict(num_experts=4))
    run_tool('convert_checkpoint.py', source, dest, '--from', 'condconv_det', '--to-static')
    assert (
        '14 layers with experts became static: 14 with sigmoid routing' in capsys.readouterr().out
    )
    content = torch.load(dest, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta'] == dict(
        dataset_meta=dict(classes=('a', 'b')), static_of='epoch_3.pth', activation='sigmoid'
    )
    static = MODELS.build(dict(type='CondConvMobileNetV1', widen_factor=0.25))
    static.load_state_dict(
        {key.removeprefix('backbone.'): value for key, value in content['state_dict'].items()}
    )


SOFTMAX = dict(activation='softmax', temperature=2.0)
MIXED = dict(
    backbone=dict(type='CondConvMobileNetV1', cond_cfg=dict(num_experts=8, routing=SOFTMAX)),
    neck=[dict(type='A'), dict(type='B', conv_cfg=dict(type='mmdet.CondConv2d', num_experts=8))],
    bbox_head=dict(type='C', cond_cfg=dict(num_experts=8, routing=dict())),
    test_cfg=dict(score_thr=0.02, nms=dict(type='nms')),
)
ENDLESS = dict(ranges=((-1, float('inf')), (float('-inf'), float('nan'))))  # as FCOS's
LAYERS = ('backbone.layer1.0.conv', 'neck.1.convs.0', 'bbox_head.cls')


def save_ones(path, text, layers=LAYERS):
    """Experts that are ones alone, and the text of the config that they were trained with."""
    experts = {f'{layer}.weight': torch.ones(8, 2, 2, 1, 1) for layer in layers}
    torch.save(dict(meta=dict(cfg=text), state_dict=experts), path)


def kernels(path):
    static = torch.load(path, weights_only=True)['state_dict']
    return [value.unique().item() for value in static.values()]


@pytest.mark.parametrize(
    'text, expected',
    [
        (Config(dict(model=MIXED)).pretty_text, [1, 4, 4]),
        (Config(dict(model=MIXED['neck'][1])).pretty_text, [4, 4, 4]),
        (Config(dict(model=dict(SOFTMAX, cond_cfg=dict(routing=SOFTMAX)))).pretty_text, [1, 1, 1]),
        ('', [4, 4, 4]),
        (Config(dict(model=dict(MIXED, test_cfg=ENDLESS))).pretty_text, [1, 4, 4]),
    ],
)
def test_each_layer_has_the_routing_that_the_config_in_the_checkpoint_says(
    text, expected, tmp_path
):
    save_ones(tmp_path / 'epoch_3.pth', text)
    static_file(tmp_path / 'epoch_3.pth', tmp_path / 'static.pth')
    assert kernels(tmp_path / 'static.pth') == expected


@pytest.mark.parametrize('text', ['model = build()', 'model = dict(', 'model = ' + '[' * 5000])
def test_a_config_that_cannot_be_read_needs_an_activation(text, tmp_path):
    source, dest = tmp_path / 'epoch_3.pth', tmp_path / 'static.pth'
    save_ones(source, text)
    with pytest.raises(ValueError, match='config in the checkpoint cannot be read as literals: '):
        static_file(source, dest)
    assert not dest.exists()
    static_file(source, dest, 'softmax')
    assert kernels(dest) == [1, 1, 1]


def test_the_config_in_a_checkpoint_is_not_run(tmp_path):
    text = f'import pathlib\npathlib.Path({str(tmp_path / "run")!r}).touch()\nmodel = dict()'
    save_ones(tmp_path / 'epoch_3.pth', text)
    static_file(tmp_path / 'epoch_3.pth', tmp_path / 'static.pth')
    assert not (tmp_path / 'run').exists()


def test_routing_other_than_the_config_says_is_refused(tmp_path):
    source, dest = tmp_path / 'epoch_3.pth', tmp_path / 'static.pth'
    save_ones(source, Config(dict(model=MIXED)).pretty_text)
    says = 'trained with softmax routing, by the config in it, of backbone.* got activation .sigm'
    with pytest.raises(ValueError, match=says):
        static_file(source, dest, 'sigmoid')
    save_ones(source, Config(dict(model=MIXED)).pretty_text, ['extra.conv'])
    with pytest.raises(ValueError, match='routers of sigmoid and of softmax in the model, and'):
        static_file(source, dest)
    assert not dest.exists()


def test_what_is_static_already_is_refused(tmp_path):
    source, dest = tmp_path / 'epoch_3.pth', tmp_path / 'static.pth'
    save_trained(source, None)
    with pytest.raises(CheckpointError, match='no experts: it is static already'):
        static_file(source, dest)
    assert not dest.exists()


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation must be .*got 'relu'"):
        static_weights({}, 'relu')
